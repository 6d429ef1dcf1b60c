-- run_commands(count, at): run `count` commands that stand in ARGV from position `at` on; used by scripts that commit.
-- A command is the number of its words, then its words. It may begin with a condition:
--   IF set member command…                 runs the command only when the set has the member
--   WHEN zset min_score min_count command…  runs it only when so many members have that score or a higher one
--   NOTE list command…                     runs it, and appends its reply to the list
--   MEASURE sizes due job input output id   no command: measure(…) of content_size.lua
--   FILL set member channel zset clock spacing most score entry   when the set has the member, PACE with the rest, and
--                                          tells the channel
--   INDEX score id zset…                    adds the job to each of these indexes
--   TERMS rows prefix id score term…        adds a new job to the index of each term, `<prefix><term>`; they are its row
--   MORETERMS rows prefix id score term…    does so with a job that may have terms, and adds these to its row
--   FORGET rows prefix id kind              removes it from the indexes of those of its terms that begin so, and these from its
--                                          row
--   METER key limits limit what…           feed_meter(…) of pace.lua
--   LEAVE job places_prefix limits id       gives back the places at limits that the job holds; what waits there is looked
--                                          at now
--   GROUP counts members id status settled keep_s at   counts the job in its group with its status, not with the last one
--                                          any more; once all jobs have ended, the group is kept for so many seconds
--   RETIRE job trail input output settled holds times app id ended passed least result prompt holder…
--                                          lets a job that ended at `ended` (ms), `passed` seconds ago, expire so many
--                                          seconds after its end, its input after `prompt`; or sooner, if the field of
--                                          its app in `times` says so: "<result> <prompt>"; but not within `least`
--                                          seconds. While the set of legal holds has one of the holders, nothing expires
--   COUNT …                                adds the job's counts to those of its week: count_losses below
-- or be one of its own, also after IF and WHEN:
--   PACE zset clock spacing most score member   adds the member with that score, or with one `spacing` above the score
--                                          added last under this clock, but by `most` higher at most: who adds many
--                                          stands behind who adds few
--   QUARANTINE rows due unnoted ends log keep end_user now until row began renewed   puts the end user into quarantine until
--                                          then (0 = until it is lifted), or renews a quarantine that would end before.
--                                          An end that can't be read stands. `began` or `renewed` is
--                                          appended to the log, which is kept for so many seconds
-- Raises what a command raises; the commands before it have been run.
local function run_command(first, last)
  if OWN[ARGV[first]] then return OWN[ARGV[first]](unpack(ARGV, first + 1, last)) end
  return call(unpack(ARGV, first, last))
end
local function run_commands(count, at)
  for _ = 1, count do
    local n = tonumber(ARGV[at])
    local word = ARGV[at + 1]
    if word == 'NOTE' then
      call('RPUSH', ARGV[at + 2], call(unpack(ARGV, at + 3, at + n)))
    elseif word == 'MEASURE' then
      measure(unpack(ARGV, at + 2, at + n))
    elseif WORDS[word] then
      WORDS[word](unpack(ARGV, at + 2, at + n))
    elseif word == 'WHEN' then
      if call('ZCOUNT', ARGV[at + 2], ARGV[at + 3], '+inf') >= tonumber(ARGV[at + 4]) then
        run_command(at + 5, at + n)
      end
    elseif word ~= 'IF' then
      run_command(at + 1, at + n)
    elseif within(ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]) then
      run_command(at + 4, at + n)
    end
    at = at + n + 1
  end
end

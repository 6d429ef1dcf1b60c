import asyncio, random
from worker.tasks.delivery import Delivery
async def test_cancel(post, clock):
    bad=0
    for n in range(300):
        d=Delivery(post.redis, clock, post.settings(), f"x{n}")
        where=[]
        orig_carry, orig_take = d._carrier.carry, d._take
        async def carry():
            where.append("carry"); r= await orig_carry(); where.append("carry-done"); return r
        async def take():
            where.append("take"); r=await orig_take(); where.append("take-done"); return r
        d._carrier.carry=carry; d._take=take
        t=asyncio.create_task(d.run())
        await asyncio.sleep(random.random()*0.02)
        where.append("CANCEL")
        t.cancel()
        done,p=await asyncio.wait([t],timeout=1)
        if p:
            bad+=1
            print(n, where[-8:], len(where))
            t.cancel(); await asyncio.wait([t],timeout=2)
    print("bad", bad)
from worker.store import listen
async def test_listener_alone(post):
    bad=0; why={}
    orig=listen.Listener._session
    async def sess(self):
        try: await orig(self)
        except BaseException as e:
            if asyncio.current_task().cancelling() and not isinstance(e, asyncio.CancelledError):
                k=repr(e)+" <- "+repr(e.__context__)+" | "+repr(e.__cause__); why[k]=why.get(k,0)+1
                if len(why)==1 and why[k]==1:
                    import traceback; traceback.print_exception(e)
            raise
    listen.Listener._session=sess
    for n in range(400):
        l=listen.Listener(post.redis, lambda *_:None, lambda _:None); l.want("x")
        t=asyncio.create_task(l.run())
        await asyncio.sleep(random.random()*0.004)
        t.cancel()
        done,p=await asyncio.wait([t],timeout=0.5)
        if p:
            bad+=1; t.cancel(); await asyncio.wait([t],timeout=2)
    listen.Listener._session=orig
    print("bad", bad, why)

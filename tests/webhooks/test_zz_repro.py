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

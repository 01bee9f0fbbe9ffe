"""What a secure sum costs a round: seconds and bytes of a million numbers, beside the plain mean of the same replies.

python tests/benchmarks/secure_sums.py
"""

import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")


from flip.messages.wire import pack_reply, pack_task
from flip.strategies.fedavg import FedAvg
from tests.privacy.secure import parties as small

NUMBERS = 10**6


def measured(sites: int, folder: Path) -> str:
    """One line: seconds at a site and at the coordinator, bytes up and down, for one round."""
    names = [f"site{number:02d}" for number in range(sites)]
    small.EXAMPLES.update(dict.fromkeys(names, 20))
    parties = small.Parties(folder, FedAvg(rounds=1), names=names, size=NUMBERS)
    at_sites, fits, asked = 0.0, 0.0, parties.answer
    trained, task = parties.trained, parties.task()
    ready = {name: trained(task, name) for name in names}
    parties.trained = lambda task, site: ready[site]  # type: ignore[method-assign]

    def timed(task, site):
        nonlocal at_sites, fits
        began = time.process_time()
        reply = asked(task, site)
        took = time.process_time() - began
        at_sites, fits = at_sites + took, fits + took * (task.step == "fit")
        return reply

    parties.answer = timed  # type: ignore[method-assign]
    began = time.process_time()
    replies = parties.summed(task)
    whole = time.process_time() - began
    assert not any(reply.fault for reply in replies.values())
    up = sum(len(pack_reply(reply)) for *_, reply in parties.tap) / sites
    down = sum(len(pack_task(task)) for task, *_ in parties.tap) / sites
    plain_up, plain_down = len(pack_reply(ready[names[0]])), len(pack_task(task))
    began = time.process_time()
    parties.strategy.mean(iter(ready.values()))
    plain = time.process_time() - began
    return (
        f"{sites} sites: a site {at_sites / sites:.3f} s (of them {fits / sites:.3f} to keep what was trained), the "
        f"coordinator {whole - at_sites:.3f} s (a plain mean {plain:.3f} s), a site sends {up / plain_up:.3f} and gets "
        f"{down / plain_down:.3f} times the bytes, both {(up + down) / (plain_up + plain_down):.3f}"
    )


def main() -> None:
    """Print a line for 4 and for 20 sites: the median of three by the time at the sites."""
    for sites in (4, 20):
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                print(measured(sites, Path(folder)), flush=True)


if __name__ == "__main__":
    main()

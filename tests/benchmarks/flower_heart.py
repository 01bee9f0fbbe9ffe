"""The heart-disease study written for Flower by hand: what `federation=flower` is measured against.

    python tests/benchmarks/flower_heart.py ARRAYS

The arrays and the arithmetic are those of `bare_heart.py`. Replies are looked for every 20 ms: Flower's own `FedAvg`
does so every 3 s, which for rounds of a fraction of a second would flatter what is compared with it. It prints the
seconds of the rounds and the pooled test accuracy.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from bare_heart import BATCH, ROUNDS, SEED, fit
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from torch.utils.data import DataLoader, TensorDataset

ARRAYS = Path(sys.argv[1]).resolve()
CLIENT, SERVER = ClientApp(), ServerApp()


def read() -> tuple[list[str], dict[str, torch.Tensor]]:
    """The sites, and their tensors by name."""
    arrays = {name: torch.from_numpy(array) for name, array in np.load(ARRAYS).items()}
    return list(dict.fromkeys(name.split("/")[0] for name in arrays)), arrays


@CLIENT.train()
def train(message: Message, context: Context) -> Message:
    """A hospital's updates in one round."""
    torch.set_num_threads(1)
    sites, arrays = read()
    site = sites[int(context.node_config["partition-id"])]
    rows = TensorDataset(arrays[f"{site}/train/x"], arrays[f"{site}/train/y"])
    model = torch.nn.Linear(13, 1)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    fit(model, DataLoader(rows, batch_size=BATCH, shuffle=True), torch.nn.BCEWithLogitsLoss())
    updated = {name: len(rows) * tensor for name, tensor in model.state_dict().items()}
    return Message(RecordDict({"arrays": ArrayRecord(updated)}), reply_to=message)


def ask(grid: Grid, nodes: list[int], model: torch.nn.Module) -> list[Message]:
    """The replies of all sites to the weights, as they come."""
    content = RecordDict({"arrays": ArrayRecord(model.state_dict())})
    messages = [Message(content, dst_node_id=node, message_type="train") for node in nodes]
    waiting, replies = set(grid.push_messages(messages)), list[Message]()
    while waiting:
        found = list(grid.pull_messages(waiting))
        waiting -= {reply.metadata.reply_to_message_id for reply in found}
        replies += found
        time.sleep(0.02)
    return replies


@SERVER.main()
def main(grid: Grid, context: Context) -> None:
    """Train by federated averaging, and test."""
    sites, arrays = read()
    torch.manual_seed(SEED)
    model = torch.nn.Linear(13, 1)
    examples = sum(len(arrays[f"{site}/train/x"]) for site in sites)
    while len(nodes := list(grid.get_node_ids())) < len(sites):
        time.sleep(0.02)
    started = time.perf_counter()
    for _ in range(ROUNDS):
        total = [reply.content["arrays"].to_torch_state_dict() for reply in ask(grid, nodes, model)]
        model.load_state_dict({name: sum(each[name] for each in total) / examples for name in model.state_dict()})
    print(f"rounds {time.perf_counter() - started:.3f}")
    right = [(model(arrays[f"{site}/test/x"]).squeeze(1) > 0) == arrays[f"{site}/test/y"] for site in sites]
    print(f"accuracy {float(torch.cat(right).float().mean()):.3f}")


if __name__ == "__main__":
    run_simulation(
        server_app=SERVER,
        client_app=CLIENT,
        num_supernodes=len(read()[0]),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0}, "init_args": {"num_cpus": 2}},
    )

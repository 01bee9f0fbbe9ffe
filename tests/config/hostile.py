"""Manifests of a hostile researcher: what each puts into an honest study, by the key that it stands at."""

from typing import Any

ANY: dict[str, Any] = {"_target_": "torch.nn.ReLU"}


def named(target: str, **arguments: object) -> dict[str, Any]:
    """A class and what it is told."""
    return {"_target_": target, **arguments}


NETS = "monai.networks.nets"
HOSTILE: dict[str, tuple[str, Any]] = {
    "removes a file": ("model.optimizer", named("monai.networks.trt_compiler.TrtCompiler", plan_path="x")),
    "fetches a network": ("model.network", named(f"{NETS}.DenseNet121", pretrained=True)),
    "fetches by default": ("model.network", named(f"{NETS}.EfficientNetBN", model_name="efficientnet-b0")),
    "fetches with an encoder": ("model.network", named(f"{NETS}.FlexibleUNet", backbone="x", pretrained=True)),
    "fetches from an address": ("model.network", named(f"{NETS}.HoVerNet", pretrained_url="localhost")),
    "fetches a text encoder": ("model.network", named("monai.networks.blocks.text_embedding.TextEncoder")),
    "fetches and runs code": ("model.loss", named("monai.losses.PerceptualLoss", spatial_dims=2)),
    "fetches code beside a list": ("model.extra", [named("monai.losses.PerceptualLoss", spatial_dims=2)]),
    "reads a pickle": ("model.network", named(f"{NETS}.Transchex", path_or_repo_id="x")),
    "makes a cache": ("dataset.part_of_it", named("datamodules.volume_cache.VolumeCache", folder="x", gigabytes=1)),
    "makes a cache by an argument": ("dataset.cache", {"folder": "x", "gigabytes": 1}),
    "opens a PACS": ("dataset.image", named("datamodules.sources.dicomweb.DICOMweb", url="http://x", cache="x")),
    "opens another PACS": ("dataset.image", named("datamodules.sources.dimse.DIMSE", host="x", port=1, cache="x")),
    "opens a table": ("dataset.records", named("datamodules.sources.table.Table", path="x", person="p")),
    "opens a database": ("dataset.records", named("datamodules.sources.omop.OMOP", connection="x")),
    "names the site's sources": ("dataset.sources", {"table": named("datamodules.sources.table.Table", path="x")}),
    "names the site's root": ("dataset.root", "/"),
    "names the site's columns": ("dataset.columns", {"age": "ssn"}),
    "an absolute table": ("dataset", named("datamodules.multimodal.Multimodal",
                                           records=named("datamodules.records.Records", table="/etc/passwd"))),
    "a table outside": ("dataset.records", named("datamodules.records.Records", table="../other/cohort.csv")),
    "a table outside by split": ("dataset.records", named("datamodules.records.Records", table={"a": ["../b"]})),
    "a table at home": ("dataset.records", named("datamodules.records.Records", table="~/cohort.csv")),
    "a folder of Windows": ("dataset.image", named("datamodules.images.Images", size=[8, 8], folder="..\\other")),
    "an absolute folder": ("dataset.image", named("datamodules.images.Images", size=[8, 8], folder="/etc")),
    "writes images": ("dataset.transforms", [named("monai.transforms.SaveImage", output_dir="x")]),
    "reads images": ("dataset.transforms", [named("monai.transforms.LoadImage")]),
    "writes a mapping": ("dataset.transforms", [named("monai.transforms.WriteFileMapping")]),
    "names a package's class": ("dataset.transforms", [named("monai.transforms.TorchVision", name="FakeData")]),
    "waits": ("dataset.transforms", [named("monai.transforms.SimulateDelay", delay_time=1e6)]),
    "prints rows": ("dataset.transforms", [named("monai.transforms.DataStats")]),
    "a process": ("model.optimizer", named("subprocess.Popen", args=["true"])),
    "a builtin": ("strategy.rounds", named("builtins.eval", source="1")),
    "the engine's own": ("model.optimizer", named("flip.tracking.WandbTracker", project="x")),
    "a transport": ("strategy.share", [named("flip.federation.nvflare.simulator.NVFlare")]),
    "an optimizer for a model": ("model", named("torch.optim.SGD", lr=1)),
    "a model for a strategy": ("strategy", named("models.tabular.LinearClassifier", features=1)),
    "a class in a name": ("name", ANY),
    "a class in a seed": ("seed", [ANY]),
    "a class of the Trainer": ("trainer.lightning.precision", named("pytorch_lightning.loggers.CSVLogger")),
    "a callback that writes": ("trainer.callbacks.it", named("pytorch_lightning.callbacks.DeviceStatsMonitor")),
    "a callback's folder": ("trainer.callbacks.it", named("pytorch_lightning.callbacks.ModelCheckpoint", dirpath="x")),
    "a callback's path": ("trainer.callbacks.it", named("pytorch_lightning.callbacks.ModelCheckpoint", filename="/x")),
    "a function in outcomes": ("outcomes", named("models.body_composition.report.write_private", path="x", text="y")),
    "a mechanism that is none": ("privacy.it", named("flip.strategies.fedavg.FedAvg", rounds=1)),
    "a private class": ("model.optimizer", named("torch.optim.optimizer._RequiredParameter")),
    "a target that is no text": ("model.optimizer", {"_target_": ["torch.optim.SGD"]}),
}  # fmt: skip

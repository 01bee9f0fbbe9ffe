"""Mistakes on the command line of the study `acme` (conftest), and what the message says."""

CALLBACK = "trainer.callbacks={{it: {{_target_: {name}{arguments}}}}}"


def callback(name: str, arguments: str = "") -> str:
    """The override for one callback of Lightning's."""
    return CALLBACK.format(name=f"pytorch_lightning.callbacks.{name}", arguments=arguments)


DOWN = ["federation=inprocess", "+privacy.full._target_=acme.parts.FullPrecision"]

# (overrides of the study `acme`, what the message says)
MISTAKES = {
    "seed out of range": (
        ["seed=99999999999999999999"],
        ["seed (the command line): 9999", "must be from 0 to 4294967295"],
    ),
    "one cohort as two sites": (
        ["sites.north.root=${sites.south.root}"],
        ["sites.south.root", "is the cohort of north as well; name another"],
    ),
    "unknown option": (["strategy=fedavgg"], ["strategy=fedavgg (the command line)", "did you mean 'fedavg'"]),
    "unknown experiment": (["experiment=acmee"], ["experiment=acmee (the command line)", "did you mean 'acme'"]),
    "unknown key": (["seeed=3"], ["seeed (the command line): no such key", "did you mean 'seed'"]),
    "unknown nested key": (["trainer.stepps=3"], ["trainer.stepps (the command line)", "did you mean 'steps'"]),
    "unknown key of a site": (["sites.north.rooot=x"], ["sites.north.rooot (the command line)", "did you mean 'root'"]),
    "plus past the schema": (["+speed=3"], ["speed (the command line): no such key"]),
    "wrong type": (
        ["trainer.steps=many"],
        ["trainer.steps (the command line): 'many' is the wrong type", "whole number"],
    ),
    "more threads than any machine has cores": (
        ["trainer.threads=1000000"],
        ["trainer.threads (the command line): 1000000 must be at most 256"],
    ),
    "wrong choice": (["trainer.optimizer_state=drop"], ["trainer.optimizer_state", "one of reset, keep"]),
    "wrong type in a target": (
        ["strategy.rounds=many"],
        ["strategy.rounds (the command line): 'many' is the wrong type"],
    ),
    "typo in a target": (["strategy.ronds=3"], ["strategy.ronds (the command line)", "did you mean 'rounds'"]),
    "typo in a nested target": (
        ["model.optimizer.lrr=3"],
        ["model.optimizer.lrr (the command line)", "did you mean 'lr'"],
    ),
    "missing value": (["name=???"], ["name (the command line): has no value"]),
    "missing argument": (["~strategy.rounds"], ["strategy (conf/strategy/fedavg.yaml): FedAvg needs strategy.rounds"]),
    "outside the allow-list": (
        ["model._target_=shutil.copytree"],
        ["model._target_ (the command line): shutil.copytree is outside the allowed prefixes", "allow_targets"],
    ),
    "not a class": (["model._target_=acme.parts.SETTING"], ["acme.parts.SETTING is not a class"]),
    "typo in a function's argument": (
        ["+model.threshold={_target_: acme.parts.halved, off: 1.0}"],
        ["model.threshold.off (the command line): halved has no such argument; did you mean 'of'"],
    ),
    "a function in a class's place": (
        ["model._target_=acme.parts.narrow"],
        ["acme.parts.narrow is a function; here a class must stand"],
    ),
    "a function that does something": (
        ["model._target_=datamodules.phantom.generate"],
        ["datamodules.phantom.generate is not on the list of what may stand here (model)"],
    ),
    "a function that writes where it is told": (
        ["+model.threshold={_target_: models.body_composition.report.write_private, path: x, text: y}"],
        ["models.body_composition.report.write_private is not on the list of what may stand here"],
    ),
    "no model": (
        ["model._target_=acme.parts.Data"],
        ["acme.parts.Data is not a pytorch_lightning.LightningModule; it must derive from that"],
    ),
    "no dataset": (
        ["dataset._target_=acme.parts.Model"],
        ["acme.parts.Model is not a pytorch_lightning.LightningDataModule"],
    ),
    "no strategy": (
        ["strategy._target_=acme.parts.Model"],
        ["acme.parts.Model is not a flip.strategies.fedavg.FedAvg"],
    ),
    "no mechanism": (
        ["federation=inprocess", "+privacy.sum._target_=acme.parts.Median"],
        ["acme.parts.Median is not a flip.privacy.Mechanism"],
    ),
    "no outcomes": (
        ["outcomes={_target_: torch.nn.ReLU}"],
        ["torch.nn.ReLU is not on the list of what may stand here (outcomes)"],
    ),
    "a callback that a study may not use": (
        [callback("LambdaCallback")],
        ["LambdaCallback is not on the list of what may stand here (callback)", "callbacks.EarlyStopping, "],
    ),
    "a callback that writes elsewhere": (
        [callback("ModelCheckpoint", ", filename: /etc/passwd")],
        ["trainer.callbacks.it.filename (the command line): '/etc/passwd' reads as a path"],
    ),
    "a folder for checkpoints": (
        [callback("ModelCheckpoint", ", dirpath: here")],
        ["trainer.callbacks.it.dirpath (the command line): is the engine's to set"],
    ),
    "an empty test": (["trainer.lightning.limit_test_batches=0"], ["limit_test_batches", "not the study's to set"]),
    "a wrong type for the Trainer": (
        ["trainer.lightning.gradient_clip_val=much"],
        ["trainer.lightning.gradient_clip_val (the command line): 'much' is the wrong type; must be a number or"],
    ),
    "a precision that there is not": (
        ["trainer.lightning.precision=24"],
        ["trainer.lightning.precision (the command line): 24 is none of 64, 64-true"],
    ),
    "a site's precision that there is not": (
        ["sites.north.precision=half"],
        ["sites.north.precision (the command line): 'half' is none of 64, 64-true"],
    ),
    "a device that there is not": (
        ["sites.north.accelerator=gpus"],
        ["sites.north.accelerator (the command line): 'gpus' is none of cpu, gpu, cuda, mps, auto"],
    ),
    "a device that this machine has not": (
        ["sites.north.accelerator=mps"],
        ["sites.north.accelerator (the command line): torch finds no mps on this machine; write cpu"],
    ),
    "a site's precision that a mechanism refuses": (
        [*DOWN, "sites.north.precision=16-mixed"],
        ["sites.north.precision (the command line): 16-mixed cannot be had: trainer.lightning.precision"],
    ),
    "privacy with a baseline of sites alone": (
        [*DOWN, "baselines.alone=true"],
        ["baselines.alone (the command line): with privacy=full it trains more on the same patients"],
    ),
    "privacy with a baseline of weights trained further": (
        [*DOWN, "baselines.fine_tuned=1"],
        ["baselines.fine_tuned (the command line): with privacy=full it trains on without it"],
    ),
    "more rounds after the last one than the study has": (
        ["federation=inprocess", "strategy.rounds=3", "baselines.fine_tuned=4"],
        ["baselines.fine_tuned (the command line): 4 is not from 1 to strategy.rounds=3"],
    ),
    "privacy with a pooled baseline": (
        [*DOWN, "baselines.centralized=true"],
        ["baselines.centralized (the command line): with privacy=full it trains without it"],
    ),
    "a checkpoint under federation": (
        ["federation=inprocess", "resume_from=last.ckpt"],
        ["resume_from (the command line)", "is for training without federation"],
    ),
    "a checkpoint that is not there": (["resume_from=last.ckpt"], ["last.ckpt is no file on this machine"]),
    "a checkpoint from elsewhere": (
        ["resume_from=https://example.org/last.ckpt"],
        ["last.ckpt is no file on this machine"],
    ),
    "a checkpoint that is none": (["resume_from=last.pt"], ["last.pt does not end in .ckpt"]),
    "prefixes that are none": (
        ["allow_targets=[acme., m]"],
        ["allow_targets (the command line): 'm' is not a prefix; write the dotted path of a package and a dot"],
    ),
    "a text for a site's prefixes": (
        ["sites.north.policy={minimum_persons: 1, minimum_cell: 1, targets: models.}"],
        ["sites.north.policy.targets", "'models.' must be a list of prefixes"],
    ),
    "through another module": (["model._target_=acme.parts.Path"], ["is defined elsewhere, as pathlib.Path"]),
    "something private": (["model._target_=acme.parts.__builtins__"], ["names something private"]),
    "no such class": (["model._target_=acme.parts.Modle"], ["'Modle' is not in acme.parts", "did you mean 'Model'"]),
    "no such module": (["model._target_=acme.partz.Model"], ["'partz' is not in acme", "did you mean 'parts'"]),
    "import error": (
        ["model._target_=acme.broken.Model"],
        ["importing acme.broken failed: ModuleNotFoundError: No module named 'a_package_that_nobody_has'"],
    ),
    "raising constructor": (
        ["model.width=3"],
        ["acme.yaml): acme.parts.Model could not be built: ValueError: width must be even"],
    ),
    "missing data root": (
        ["sites.north.root=/nowhere"],
        ["sites.north.root (the command line): /nowhere does not exist"],
    ),
    "site named twice": (["sites=[north,north]"], ["sites (the command line): north is named twice"]),
    "no site": (["sites=[]"], ["sites: there is none; choose some"]),
    "unknown site": (["sites=[nort]"], ["sites=nort (the command line)", "did you mean 'north'"]),
    "impossible pairing": (
        ["federation=inprocess", "strategy._target_=acme.parts.Median", "+privacy.sum._target_=acme.parts.SecureSum"],
        ["Median needs every site's reply apart, which SecureSum does not show"],
    ),
    "privacy without federation": (
        ["+privacy.sum._target_=acme.parts.SecureSum"],
        ["without federation a site sends nothing, so privacy=sum would protect nothing"],
    ),
    "more sites asked for than train": (
        ["federation=inprocess", "strategy.min_sites=3"],
        ["strategy.min_sites (the command line): 3 of 2 training sites can never answer"],
    ),
    "fewer sites asked than must answer": (
        ["federation=inprocess", "strategy.min_sites=2", "strategy.fraction=0.5"],
        ["strategy.fraction (the command line): a round asks 1 of 2 training sites", "strategy.min_sites=2"],
    ),
    "fewer sites visited than must answer": (
        ["federation=inprocess", "strategy=cyclic", "strategy.min_sites=2", "strategy.visits=1"],
        ["strategy.visits (the command line): a round asks 1 of 2 training sites"],
    ),
    "more visits than sites": (
        ["federation=inprocess", "strategy=cyclic", "strategy.visits=3"],
        ["strategy.visits (the command line): 3 is more than the 2 training sites"],
    ),
    "fewer sites than a robust rule is for": (
        ["federation=inprocess", "strategy=krum"],
        ["strategy (conf/strategy/krum.yaml): Krum as declared needs 5 sites in a round, which asks 2; add sites"],
    ),
    "weights that are all zero": (
        ["federation=inprocess", "strategy.site_weights={north: 0.0, south: 0.0}"],
        ["strategy.site_weights (the command line): no training site has a weight above 0"],
    ),
    "no steps and no passes": (["trainer.steps=null", "trainer.epochs=null"], ["both are null"]),
    "unreadable override": (["strategy.share=[a"], ["strategy.share=[a (the command line): cannot be read"]),
    "unknown rule of a policy": (
        ["sites.north.policy={minimum: 3}"],
        ["sites.north.policy.minimum (the command line): no such rule"],
    ),
    "somebody else's Trainer": (
        ["trainer.lightning.logger=true"],
        ["trainer.lightning.logger", "not the study's to set"],
    ),
    "the site's own argument": (["dataset.root=/data"], ["dataset.root (the command line): is the site's to set"]),
    "nothing to resolve": (["name=${nobody}"], ["name (the command line): cannot be resolved", "nobody"]),
    "a mechanism that is none": (
        ["federation=inprocess", "+privacy.sum=3"],
        ["privacy.sum (the command line): must hold _target_ and its arguments, not 3"],
    ),
    "a value that its class refuses": (
        ["strategy.rounds=0"],
        ["strategy.rounds=0 (the command line): must be 1 or more"],
    ),
    "a schema's and a constructor's at once": (
        ["seeed=3", "strategy.ronds=3", "dataset=???"],
        ["for 3 reasons", "did you mean 'seed'", "did you mean 'rounds'", "dataset"],
    ),
    "several at once": (
        ["seeed=3", "trainer.steps=many", "name=???"],
        ["for 3 reasons", "seeed", "trainer.steps", "name (the command line): has no value"],
    ),
    "several kinds at once": (
        ["federation=flowr", "model.widht=4", "strategy.ronds=3"],
        ["for 3 reasons", "did you mean 'flower'", "did you mean 'width'", "did you mean 'rounds'"],
    ),
}

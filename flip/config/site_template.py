"""A site's own file as it is first written: every key and rule, each with its unit, its default, an alternative."""

from collections.abc import Mapping

from flip.config.targets import STUDY_TARGETS

RULES: Mapping[str, tuple[str, str]] = {
    "minimum_persons": ("???", "distinct persons that a cohort must hold before anything is computed on it; e.g. 50"),
    "minimum_cell": ("???", "persons that must stand behind every number that leaves this site; e.g. 5"),
    "rounding": (
        "1",
        "what every count that leaves is rounded to a multiple of; 1, as it is, if left out; e.g. 5 (the NHS's rule)",
    ),
    "targets": (
        f"[{', '.join(STUDY_TARGETS)}]",
        "prefixes of the code that a study may name; these if left out; e.g. one more: my_package.",
    ),
    "minimum_batch": ("2", "distinct persons of a training batch, in most batches of a fit; 2 if left out; e.g. 8"),
    "persons_per_parameter": (
        "3",
        "persons to train on for each parameter of a linear model, 0: any number; 3 if left out; e.g. 10",
    ),
    "maximum_parameters": ("100000000", "numbers that a model may hold; 100000000 if left out; e.g. 1000000"),
    "maximum_rounds": ("200", "federated rounds of a study; 200 if left out; e.g. 50"),
    "maximum_steps": ("2000", "optimizer steps of a round here; 2000 if left out; e.g. 500"),
    "maximum_seconds": (
        "21600",
        "seconds of one task, after which this site's process ends; 21600 if left out; e.g. 3600",
    ),
    "maximum_memory": (
        "32",
        "gigabytes of this machine's memory, beyond which this site's process ends; 32 if left out; e.g. 8",
    ),
    "maximum_change": (
        "0.05",
        "root mean square by which weights that are sent may have moved in a round; 0.05 if left out; e.g. 0.02",
    ),
    "near_cohorts": (
        "refused",
        "a cohort that differs by 1 person or more, and fewer than minimum_cell, from one answered about: both answers "
        "tell of them; where rows change daily, give studies an extract; refused if left out; answered: no such rule",
    ),
    "maximum_questions": (
        "10",
        "different questions about the cohort that are ever answered; 10 if left out; e.g. 3",
    ),
    "share": (
        "0.5",
        "largest part, above 0 to 1, that a study's own weights give one site in a round; 0.5 if left out; e.g. 0.25",
    ),
    "least_sites": (
        "1",
        "sites that a round of the study must have (its strategy.min_sites); 1, any, if left out; e.g. 3",
    ),
    "secure_aggregation": (
        "null",
        "required: only studies in which nobody can open what this site trains but in a sum with other sites' "
        "(privacy=secure_aggregation); null, no such rule, if left out",
    ),
    "privacy": (
        "null",
        "mechanism that a study must have, and the most that all studies spend on these data; null, none, if left out; "
        "e.g. {mechanism: dp_sgd, epsilon: 3, delta: 1.0e-5}",
    ),
    "models": (
        "[]",
        "sha256 of models trained elsewhere that a study may send here, to begin from or to apply; none, [], if left "
        "out; null: any; from the result.json of a run: `digest` to begin from it, `model` to apply it",
    ),
    "releases": (
        "[statistics, describe, metrics, outcomes, weights]",
        "kinds of what may leave, all others stay; these if left out; e.g. also levels, which no study declares",
    ),
    "trackers": (
        "[]",
        "online trackers that a study's numbers may go to, as its coordinator names them; [], none, if left out; "
        "e.g. [wandb]; null: any",
    ),
    "approval": (
        "???",
        "who here must have signed for a study before its first task (flip site approve); every study is refused if "
        "left out; none: it runs unseen, under the rules above; e.g. {keys: {ada: her public key}, needed: 1}",
    ),
    "release": (
        "null",
        "stages (statistics, training, results) at which what would leave waits here until a person has seen it (flip "
        "site release); null, all leaves at once, if left out; e.g. {stages: [results], keys: {ada: her key}}",
    ),
}
"""By rule of a policy the value that a new file states (???: the owner does), and what the file says of it."""

SITE_TEMPLATE = (
    """\
# This site's own file; it is read here alone and never sent. Fill in each ???, then: flip site check site.yaml
root: ???               # where the data lie on this machine; e.g. /data/cohort.csv
columns: {}             # declared column: the name that it has here; e.g. {age: AGE_YEARS}
person: ???             # this site's own column that says whose a row is, e.g. MRN; row: each row is a person
opt_out: null           # file of the persons who opted out or withdrew, one a line; null: none; e.g. /data/opt_out.txt
sources: {}             # where table, images and notes come from, if not from files in root; see conf/README.md
cache: {folder: null, gigabytes: 20}  # decoded images, kept for later runs; folder: e.g. /data/flip_cache, null: none
peers: {}               # other site: its public key, as flip site peers prints this line; {}: no secure sums here
cohort: null            # name under which the privacy budget of the data is kept; null: one for all; e.g. ct_2019
trains: true            # false: this site's data are only tested on
accelerator: cpu        # what computes; gpu
devices: 1              # of these that train together, one process each; e.g. 4
precision: null         # null: as the study says; e.g. bf16-mixed
models: []              # files of models that a study may name by digest and not send; e.g. [/models/ct.safetensors]
checkpointing: false    # true: less memory in training and more time, as parts of a network are computed again
policy:                 # what a study may; flip site check says it in words
"""
    + "".join(f"  {rule}: {value}  # {words}\n" for rule, (value, words) in RULES.items())
    + """\
secret: null            # file of 32 bytes, of which noise and this site's key in sums come; null: made on first use
"""
)

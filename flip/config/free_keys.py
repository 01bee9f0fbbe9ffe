"""Which keys of an approved study may be free, and how a person writes them: `--free 'strategy: [fedavg, fedprox]'`.

Everything else of a manifest is as it was approved: data, query, persons, split, batch, model, rounds, code.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from flip.config.places import listed
from flip.config.targets import TARGET
from flip.errors import UserError, nearest
from flip.files import conf_folder
from flip.strategies.fedavg import FedAvg

Values = Mapping[str, object]
"""Of JSON, by key."""
ANY, BETWEEN, ONE_OF, STRATEGY = "any", "between", "one_of", "strategy"
FREE = re.compile(r"seed|name|strategy(\.[a-z]\w*)?|model\.optimizer(\.[a-z]\w*)+", re.ASCII)
PROTOCOL = frozenset(inspect.signature(FedAvg.__init__).parameters) - {"self"}
"""What every strategy has, and no approval leaves free: rounds, sites, what travels, when it stops."""
WHAT = "seed, name, model.optimizer.KEY, strategy, and strategy.KEY that is not every strategy's own"


def unfit_free(manifest: Values, free: Mapping[str, object]) -> Iterator[str]:
    """What of the free keys of an envelope may not be free."""
    for key, rule in free.items():
        if not FREE.fullmatch(key) or key.removeprefix("strategy.") in PROTOCOL:
            yield f"{key}: cannot be free; these can: {WHAT}"
        elif key == STRATEGY:
            choices = rule.get(ONE_OF) if isinstance(rule, Mapping) else None
            fixed = [shared(each) for each in choices] if isinstance(choices, list) else []
            if not fixed or any(each != shared(manifest[STRATEGY]) for each in fixed):
                yield f"{key}: each must have the manifest's own {', '.join(sorted(PROTOCOL))}"


def shared(strategy: object) -> Mapping[str, object] | None:
    """What of a strategy every one has."""
    return {key: strategy.get(key) for key in PROTOCOL} if isinstance(strategy, Mapping) else None


def read_free(manifest: Values, words: Sequence[str]) -> dict[str, object]:
    """Free keys as a person writes them, each `KEY: any`, `KEY: [least, most]` of two numbers, or `KEY: [one, other]`.

    Raises UserError with every mistake.
    """
    problems: list[str] = []
    found: dict[str, object] = {}
    for word in words:
        key, colon, value = word.partition(":")
        key = key.strip()
        try:
            stated = OmegaConf.to_container(OmegaConf.create(f"is: {value}")) if colon else None  # 1e-4: a number
            found[key] = _rule(manifest, key, stated["is"] if isinstance(stated, dict) else None)
        except (UserError, OmegaConfBaseException, YAMLError) as error:
            problems.append(f"--free {word!r}: {str(error).splitlines()[0]}")
    problems += [f"--free {each}" for each in unfit_free(manifest, found)] if not problems else []
    known = [{**manifest, STRATEGY: each} for each in _choices(manifest, found)]
    for key in found if not problems else ():
        if not any(_has(each, key) for each in known):
            problems.append(f"--free {key}: the manifest has no number or text of this name")
    if problems:
        raise UserError(problems)
    return found


def _choices(manifest: Values, free: Mapping[str, object]) -> Sequence[object]:
    rule = free.get(STRATEGY)
    return rule[ONE_OF] if isinstance(rule, dict) else [manifest[STRATEGY]]


def _has(manifest: Values, key: str) -> bool:
    value: object = manifest
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return key == STRATEGY or (isinstance(value, int | float | str) and not isinstance(value, bool))


def _rule(manifest: Values, key: str, value: object) -> object:
    """A free key's values as an envelope holds them. Raises UserError."""
    if key == STRATEGY and isinstance(value, list) and value:
        own = manifest[STRATEGY]
        assert isinstance(own, dict)  # of a settled study
        return {ONE_OF: [strategy(own, str(each)) for each in value]}
    if value == ANY and key != STRATEGY:
        return ANY
    plain = isinstance(value, list) and value and all(isinstance(each, int | float | str) for each in value)
    if not isinstance(value, list) or not plain or key == STRATEGY:
        raise UserError("must be any, [least, most] of two numbers, or [one, other, ...]; of strategy, their names")
    numbers = [each for each in value if not isinstance(each, str | bool)]
    if len(value) == len(numbers) == 2:
        if not value[0] <= value[1]:
            raise UserError("the least is above the most")
        return {BETWEEN: value}
    return {ONE_OF: value}


def strategy(own: Values, name: str) -> Values:
    """The study's strategy, or the engine's one of this name with the study's rounds and the like. Raises UserError.

    What is the other's own, such as fedprox's mu, is as `conf/strategy` has it.
    """
    names = {path.split(".")[-2]: path for path in listed()[STRATEGY]}
    file = conf_folder() / STRATEGY / f"{name}.yaml"
    if name not in names or not file.is_file():
        known = sorted(each.stem for each in file.parent.glob("*.yaml"))
        raise UserError(f"{name}: no such strategy; {nearest(name, known)}")
    if own[TARGET] == names[name]:
        return own
    whole = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(whole, dict)
    return {str(key): value for key, value in whole.items() if key not in PROTOCOL} | {
        key: own[key] for key in PROTOCOL if key in own
    }

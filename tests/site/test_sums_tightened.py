"""What was trained under one policy enters no sum under a tighter one, whichever step of the sum comes next."""

from collections.abc import Iterator, Sequence

import pytest
import yaml

from flip.messages import Fault, Reply, Task
from tests.site.test_sums import Hospitals, quick  # noqa: F401 - a fit without training


class Tightening(Hospitals):
    """Hospitals of which `va` adds a rule to its file just before a step of a sum."""

    before, rules = "", ()

    def ask(self, task: Task, names: Sequence[str]) -> Iterator[Reply]:
        if task.step == self.before:
            file = self.folder / "va.yaml"
            values = yaml.safe_load(file.read_text())
            file.write_text(yaml.safe_dump({**values, "policy": {**values["policy"], **dict(self.rules)}}))
        yield from super().ask(task, names)


FEWER, MORE = ("releases", ["statistics", "metrics"]), ("minimum_cell", 5)


@pytest.mark.parametrize(("step", "rule"), [("keys", FEWER), ("shares", MORE), ("masked", FEWER), ("unmask", MORE)])
def test_a_rule_that_comes_between_a_fit_and_its_sum_holds_for_the_sum(step, rule, tmp_path):
    hospitals = Tightening(tmp_path)
    hospitals.before, hospitals.rules = step, (rule,)
    replies = hospitals.round()
    told = [reply for task, name, reply in hospitals.tap if (task.step, name) == (step, "va")]
    assert [(reply.fault, dict(reply.state)) for reply in told] == [(Fault.REFUSED_RULE, {})]
    assert "of a fit that was not made under the site's file as it is now" in hospitals.log()
    assert {name for name, reply in replies.items() if reply.fault is None} >= {"cleveland", "hungarian"}

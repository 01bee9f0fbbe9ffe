"""What a run came to, for the page and the terminal: its main metric beside the baselines, and its sites."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from flip.config.outcome_names import outcome_names
from flip.errors import several
from flip.files import CENTRALIZED, FINE_TUNED
from flip.report.applied import applied
from flip.report.differences import Difference, Model, paired
from flip.report.format import number
from flip.report.notices import has_protocol
from flip.report.tables import fault_text, kind_of
from flip.runs.record import RunRecord

SHOWN = 4  # models of sites alone: of more, the best and the worst stand for all
LOSES = 0.25  # share of a site's examples that it must leave out for the verdict to name it


@dataclass(frozen=True)
class Verdict:
    """The first screen of a run."""

    run: RunRecord

    @cached_property
    def models(self) -> list[Model]:
        """This run first, then the baselines that there are."""
        main, run = self.run.main, self.run
        if main is None:
            return []
        if given := applied(run):
            return [Model(name, run.tested(main, None, at), run.interval(main, None, at)) for name, at in given.items()]
        if run.backend == "none":
            return [Model("centralized", run.tested(main, None), run.interval(main, None))]
        named = {"this run": "", "fine-tuned at each site": f"baseline/{FINE_TUNED}/"}
        named |= {"centralized": f"baseline/{CENTRALIZED}/"}
        named |= {f"{site} alone": f"baseline/alone/{site}/" for site in run.sites}
        found = [Model(name, run.tested(main, None, at), run.interval(main, None, at)) for name, at in named.items()]
        central, alone = ([each for each in part if math.isfinite(each.value)] for part in (found[1:3], found[3:]))
        if len(alone) > SHOWN:
            alone.sort(key=lambda model: model.value, reverse=run.higher_is_better(main))
            alone = [
                replace(alone[0], name=f"{alone[0].name}, the best"),
                replace(alone[-1], name=f"{alone[-1].name}, the worst"),
            ]
        return [found[0], *self._protocol(main), *central, *alone]

    def _protocol(self, main: str) -> list[Model]:
        """This run on rows that are scaled as one cohort, where its dataset has such."""
        if not has_protocol(self.run):
            return []
        value = self.run.tested(main, None, rescaled=True)
        ends = self.run.interval(main, None, rescaled=True)
        return [Model("this run, by the benchmark's protocol", value, ends, protocol=True)]

    @cached_property
    def differences(self) -> list[Difference]:
        """This run against each baseline; against a model of a site's own on its own test data."""
        found = [
            self._difference("fine-tuning at each site", dict.fromkeys(self.run.sites, f"baseline/{FINE_TUNED}/")),
            self._difference("centralized training", dict.fromkeys(self.run.sites, f"baseline/{CENTRALIZED}/")),
            self._difference("each site's own model", {site: f"baseline/alone/{site}/" for site in self.run.sites}),
        ]
        return [each for each in found if each is not None]

    @cached_property
    def sentence(self) -> str:
        """Whether this run is better or worse than the baselines, in one sentence; empty where no interval tells."""
        higher = self.run.higher_is_better(self.run.main) if self.run.main else True
        said = [text for gap in self.differences if (text := gap.says(higher))]
        return f"This run is {' and '.join(said)}." if said else ""

    @cached_property
    def better_alone(self) -> list[str]:
        """The sites whose own model, made of their data alone, does better than this run on the test data of all."""
        main, run = self.run.main or "", self.run
        sign = 1 if run.higher_is_better(main) else -1
        own = run.tested(main, None)
        found = {
            site: gap
            for site in run.sites
            if (gap := sign * (run.tested(main, None, f"baseline/alone/{site}/") - own)) > 0
        }
        return [
            f"{site} alone is better by {number(found[site])} on the test data of all sites"
            for site in sorted(found, key=lambda name: -found[name])
        ]

    @cached_property
    def worst(self) -> str:
        """The site that this run serves worst, with its interval and its test examples; empty where none is named."""
        main, run = self.run.main, self.run
        site = run.worst_site(main) if main else None
        if main is None or site is None:
            return ""
        ends = run.interval(main, site)
        told = f" ({number(ends[0])} to {number(ends[1])})" if ends else ", without an interval"
        return (
            f"Worst site: {site}, {number(run.tested(main, site))}{told}, {run.examples(site, 'test'):,} test examples."
        )

    def _difference(self, against: str, prefixes: Mapping[str, str]) -> Difference | None:
        main, run = self.run.main or "", self.run
        by_site = {
            site: gap
            for site, prefix in prefixes.items()
            if math.isfinite(gap := run.tested(main, site) - run.tested(main, site, prefix))
        }
        weights = [run.examples(site, "test") for site in by_site]
        if not by_site or not sum(weights):
            return None
        value, interval = paired(list(by_site.values()), weights)
        sign = 1 if run.higher_is_better(main) else -1
        return Difference(against, value, interval, list(by_site), [s for s, gap in by_site.items() if sign * gap < 0])

    @cached_property
    def roles(self) -> dict[str, str]:
        """By site, what it did: "took part", "tested only", "refused", "lost" or "failed in 3 of 15 rounds"."""
        fits = [record for record in self.run.records if record["phase"] == "fit"]
        found = {}
        for site in self.run.sites:
            about = self.run.cohort.get(site, {})
            mine = [str(record.get("fault") or "") for record in fits if record["site"] == site]
            faults = [fault for fault in mine if fault]
            if about.get("fault"):
                found[site] = kind_of(str(about["fault"])).replace("fault", "lost")
            elif about.get("trains") is False:
                found[site] = "tested only"
            elif mine and len(faults) == len(mine):
                found[site] = "refused" if kind_of(faults[-1]) == "refused" else "lost"
            elif faults:
                found[site] = f"failed in {len(faults)} of {several(len(mine), 'round')}"
            else:
                found[site] = "took part"
        return found

    def why(self, site: str) -> str:
        """Why a site was refused or lost, or failed in a round; empty for one that took part."""
        first = self.run.cohort.get(site, {}).get("fault")
        faults = [r["fault"] for r in self.run.records if r["site"] == site and r["phase"] == "fit" and r.get("fault")]
        return fault_text(str(first or faults[-1])) if first or faults else ""

    @property
    def absent(self) -> list[str]:
        """The sites that were refused, lost or failed in a round."""
        return [site for site, role in self.roles.items() if role not in ("took part", "tested only")]

    @cached_property
    def sites(self) -> list[str]:
        """Who took part, one sentence each; the reason of each that did not."""
        if self.run.backend == "none" or not self.roles:
            return []
        trained = [site for site, role in self.roles.items() if role == "took part" or role.startswith("failed")]
        tests = [site for site, role in self.roles.items() if role == "tested only"]
        said = [f"{len(trained)} of {several(len(self.roles) - len(tests), 'site')} trained."]
        said += [f"{', '.join(tests)}: tested only, in no pooled number."] if tests else []
        for site in self.absent:
            role, why = self.roles[site], self.why(site)
            said.append(f"{site}: {why}." if why.startswith(role) else f"{site}: {role}, {why}.")
        return said

    @cached_property
    def cohort(self) -> list[str]:
        """How much of the data was used, which sites lost much of theirs, and the outcomes that were trained on."""
        used, whole = self._counts
        if not sum(whole.values()):
            return []
        persons = sum(int(about.get("persons") or 0) for about in self.run.cohort.values())
        alike = persons == sum(whole.values())
        said = f"{sum(used.values()):,} of {sum(whole.values()):,} {'persons' if alike else 'examples'} used"
        said += "." if alike or not persons else f", of {several(persons, 'person')}."
        return [said, *self.losses, *self._outcomes()]

    @cached_property
    def losses(self) -> list[str]:
        """The sites that leave out much of their data, in one sentence; nothing where none does."""
        used, whole = self._counts
        lost = {site: 1 - used[site] / whole[site] for site in used if whole[site]}
        much = [f"{site} leaves out {share:.0%}" for site, share in lost.items() if share > LOSES]
        return [f"{'; '.join(much)} of its own."] if much else []

    @cached_property
    def _counts(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """By site, the examples that were used, and those with what was skipped."""
        used, whole = {}, {}
        for site, about in self.run.cohort.items():
            used[site] = sum(self.run.examples(site, split) for split in ("train", "validate", "test"))
            whole[site] = used[site] + sum(int(n) for n in (about.get("skipped") or {}).values())
        return used, whole

    def _outcomes(self) -> list[str]:
        total: dict[str, int] = {}
        for about in self.run.cohort.values():
            for name, persons in (about.get("outcomes") or {}).items() if about.get("trains") else ():
                total[name] = total.get(name, 0) + int(persons)
        declared = outcome_names(self.run.config.get("dataset") or {})
        ordered = [name for name in declared if name in total] or list(total)
        if (self.run.config.get("dataset") or {}).get("structures"):
            return self._structures(total, ordered)
        parts = "; ".join(f"{name}: {total[name]:,}" for name in ordered)
        return [f"Persons trained on, by outcome: {parts}."] if parts else []

    def _structures(self, total: Mapping[str, int], ordered: list[str]) -> list[str]:
        """Who labeled what: persons by structure, and the sites of one that not all label that tell."""
        told = {site: about["outcomes"] for site, about in self.run.cohort.items() if about.get("outcomes")}
        by = {name: [site for site in told if told[site].get(name)] for name in ordered}
        alone = {name: f" (at {', '.join(sites)})" if len(sites) < len(told) else "" for name, sites in by.items()}
        parts = [f"{name}: {total[name]:,}{alone[name]}" for name in ordered]
        return [f"Persons trained on, by labeled structure: {'; '.join(parts)}."] if parts else []

from flip.cli.compose import Composer
from flip.cli.hydra_errors import composed
from flip.cli.origin import Origin
from flip.cli.study import study_of
from tests.cohorts.heart import write_tiny_heart


def test_a_study_without_a_mistake_is_composed_once(tmp_path, monkeypatch):
    looked_up = []
    monkeypatch.setattr(Origin, "__call__", lambda self, key: looked_up.append(key) or "")
    composer = Composer(["experiment=heart_disease", f"paths.data_dir={write_tiny_heart(tmp_path)}"])
    cfg = composed(composer)
    study_of(cfg, cfg.hydra.runtime.choices, composer)
    assert looked_up == []

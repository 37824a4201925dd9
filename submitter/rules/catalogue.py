"""Which rules belong to which model (floor 1, pure). A new family is a new file and a line here."""

from submitter.rules import pixverse, runware
from submitter.rules.kinds import Rule, RuleSet

MODELS: dict[str, dict[str, RuleSet]] = {
    "runware": {**pixverse.MODELS},
}

UNKNOWN_MODEL: dict[str, tuple[Rule, ...]] = {
    "runware": runware.UNKNOWN_MODEL,
}


def rules_for(platform: str, model: str) -> RuleSet | None:
    return MODELS.get(platform, {}).get(model)


def rules_for_any_model(platform: str) -> tuple[Rule, ...]:
    return UNKNOWN_MODEL.get(platform, ())

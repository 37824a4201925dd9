"""Which rules belong to which model (floor 1, pure). A new family is a new file and a line here."""

from submitter.rules import nanogpt, pixverse, reference
from submitter.rules.kinds import RuleSet, spoken

MODELS: dict[str, dict[str, RuleSet]] = {
    "runware": {**pixverse.MODELS},
}

# For models without rules of their own. NanoGPT's page has rules for all models, and none for one.
UNKNOWN_MODEL: dict[str, RuleSet] = {
    "runware": reference.UNKNOWN_MODEL,
    "nanogpt": nanogpt.UNKNOWN_MODEL,
}


def rules_for(platform: str, model: str) -> RuleSet | None:
    return MODELS.get(platform, {}).get(model)


def rules_for_any_model(platform: str) -> RuleSet | None:
    return UNKNOWN_MODEL.get(platform)


def page_of(platform: str, model: str, parameter: str) -> str | None:
    """The URL at which a finding's parameter is explained, if its page is known."""
    found = rules_for(platform, model) or rules_for_any_model(platform)
    path = ".".join(part for part in parameter.split(".") if not part.isdigit())
    if found is None or found.page is None or path not in set(spoken(found.rules)):
        return None
    anchor = found.page.anchor(path)
    return f"{found.page.url}#{anchor}" if anchor else None

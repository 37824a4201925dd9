"""What Runware asks of every video task, whatever the model. Data (floor 1)."""

from submitter.rules.kinds import (
    AnyOf,
    Closed,
    Given,
    Is,
    Kind,
    Length,
    Not,
    OneOf,
    Range,
    Rule,
    When,
)

VIDEO: tuple[Rule, ...] = (
    Kind("", ("object",)),
    OneOf("taskType", ("videoInference",)),
    # The page asks for version 4; tasks with a version 7 id were accepted and echoed.
    Kind("taskUUID", ("uuid",)),
    Kind("model", ("text",)),
    Kind("webhookURL", ("url",)),
    Kind("uploadEndpoint", ("url",)),
    OneOf("outputType", ("URL",), also=("url",)),
    OneOf("outputFormat", ("MP4", "WEBM", "MOV"), also=("mp4", "webm", "mov")),
    Range("outputQuality", 20, 99),
    Range("ttl", 60),
    Range("numberResults", 1, 4),
    Kind("includeCost", ("boolean",)),
    Kind("safety", ("object",)),
    Kind("safety.checkContent", ("boolean",)),
    OneOf("safety.mode", ("none", "fast", "full")),
    Closed("safety"),
    Kind("inputs", ("object",)),
    Kind("providerSettings", ("object",)),
)

# Only what holds for every model: one without rules may take longer prompts and larger seeds.
UNKNOWN_MODEL: tuple[Rule, ...] = (
    When(
        AnyOf((Not(Given("taskType")), Is("taskType", ("videoInference",)))),
        (
            *VIDEO,
            OneOf("deliveryMethod", ("async", "sync")),
            Length("positivePrompt", 2),
            Length("negativePrompt", 2),
            Range("seed", 0),
        ),
    ),
)

"""What Runware asks of every video task, whatever the model. Data (floor 1)."""

from submitter.rules.kinds import Closed, Kind, OneOf, Page, Range, Required, Rule

# What the page of 2025-10 does not explain: names of the newer pages, and the parts of a watermark,
# which share one anchor.
REFERENCE = Page(
    url="https://runware.ai/docs/en/video-inference/api-reference",
    named={
        "inputs.frameImages": "request-frameimages",
        "inputs.frameImages.frame": "request-frameimages-frame",
        **{
            f"{place}.{name}": "request-frameimages-inputimages"
            for place in ("inputs.frameImages", "frameImages")
            for name in ("image", "inputImage", "inputImages")
        },
        "providerSettings.miniMax": "request-providersettings-minimax",
        **{
            f"advancedFeatures.watermark.{name}": "request-advancedfeatures-watermark"
            for name in (
                *("text", "image", "displayPosition", "tiled"),
                *("opacity", "fontColor", "bgColor"),
            )
        },
    },
    without=frozenset(
        {
            "inputs",
            "resolution",
            "providerSettings.pixverse.audio",
            "providerSettings.pixverse.multiClip",
            "providerSettings.pixverse.thinking",
            "providerSettings.pixverse.watermark",
        }
    ),
)

VIDEO: tuple[Rule, ...] = (
    Kind("", ("object",)),
    OneOf("taskType", ("videoInference",)),
    # The page asks for version 4; tasks with a version 7 id were accepted and echoed.
    Kind("taskUUID", ("uuid",)),
    Required("model"),
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

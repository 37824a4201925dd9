"""Every knob as people meet it: its flag, what it does, where that comes from. Pure data, no I/O.

The types, bounds and defaults that are enforced stand in `config.Knobs`, which needs pydantic; the
command's help must not. A test holds the two against each other, and makes the page of them.
"""

from __future__ import annotations

from dataclasses import dataclass

BODIES, TIMING, FAULTS = "Callback bodies", "Timing", "Faults"
ANSWERS, POLLS = "Submit answers", "Poll answers"
PIXVERSE, NANOGPT = "PixVerse on Runware", "NanoGPT"


@dataclass(frozen=True, slots=True)
class Option:
    """One knob. `kind` is its type, or the words it takes; `default` is how the help tells it.

    `source` says why the knob exists: a page, what was seen in the field, or an assumption.
    """

    name: str
    kind: type[bool] | type[int] | type[float] | type[str] | tuple[str, ...]
    default: str
    does: str
    panel: str
    source: str

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def help(self) -> str:
        """What it does, with its default in brackets."""
        return f"{self.does} ({self.default})." if self.default else f"{self.does}."


_SEED = Option(
    "seed",
    int,
    "0",
    "Same seed, same ids, order and faults",
    "",
    "Ours: naming it over HTTP begins the run anew.",
)

_BODIES = (
    Option(
        "envelope",
        ("wrapped", "flat", "mixed"),
        "wrapped",
        "Shape of a success callback",
        BODIES,
        "The official sources disagree: the SDK's README and code that ran say wrapped, the"
        " newest skill says flat.",
    ),
    Option(
        "error_envelope",
        ("errors", "error", "flat", "item", "mixed"),
        "errors",
        "Shape of an error callback",
        BODIES,
        "Four shapes seen in SDK tests and in the field.",
    ),
    Option(
        "include_nsfw",
        bool,
        "",
        "Add NSFWContent",
        BODIES,
        "A documented field that no published example shows.",
    ),
    Option(
        "big_seeds",
        bool,
        "",
        "Seeds above 2^31-1",
        BODIES,
        "The reference draws seeds from 32 bits and caps them at 31.",
    ),
    Option(
        "extra_fields",
        bool,
        "",
        "Add fields nobody documented",
        BODIES,
        "Ours: platforms add fields without notice.",
    ),
)

_TIMING = (
    Option(
        "delay_s",
        float,
        "0.5",
        "Mean seconds until a result is ready",
        TIMING,
        "Ours; real videos take a minute or more.",
    ),
    Option(
        "spread_s",
        float,
        "0.25",
        "Seconds by which that varies, up and down",
        TIMING,
        "Ours: each result is drawn on its own.",
    ),
    Option(
        "delays",
        str,
        "drawn",
        "Seconds until the results of a task are ready, one by one: 0.1,5,30",
        TIMING,
        "Ours; the last counts for all further results, and `delay_s` and `order` for none.",
    ),
    Option(
        "order",
        ("shuffled", "in_order"),
        "shuffled",
        "Which result of a task is ready first",
        TIMING,
        "No order is documented.",
    ),
    Option(
        "late_s",
        float,
        "0",
        "Seconds a callback lags behind its result",
        TIMING,
        "Ours: a callback after the deadline that a poll has already answered.",
    ),
    Option(
        "callback_before_ack",
        bool,
        "",
        "Call back first, then acknowledge the submit",
        TIMING,
        "Seen in the field: the callback can overtake the answer.",
    ),
    Option(
        "progress_callbacks",
        int,
        "0",
        "Callbacks before each result that say it is still processing",
        TIMING,
        "One design in the field has them, no page does.",
    ),
)

_FAULTS = (
    Option(
        "failures",
        float,
        "0",
        "Probability that a result fails",
        FAULTS,
        "Documented: each result fails by itself.",
    ),
    Option(
        "fail_index",
        int,
        "none",
        "The result of each task that fails, counted from 0",
        FAULTS,
        "Documented: a polled task can mix successes and errors.",
    ),
    Option(
        "failure_code",
        str,
        "timeoutProvider",
        "Error code of failed results",
        FAULTS,
        "The code of the reference's error example.",
    ),
    Option(
        "duplicates",
        float,
        "0",
        "Probability that a callback is sent again after a 2xx",
        FAULTS,
        "Runware's skill: retries can deliver twice.",
    ),
    Option("duplicate_count", int, "1", "How many times again", FAULTS, "Ours."),
    Option(
        "duplicate_kind",
        ("exact", "reordered", "conflict"),
        "exact",
        "Same bytes, other key order, or other cost",
        FAULTS,
        "Ours: what tells a repeated callback from a contradicting one.",
    ),
    Option(
        "duplicate_after_s",
        float,
        "0",
        "Seconds between a 2xx and the duplicate",
        FAULTS,
        "Ours: one that comes when the task is long done.",
    ),
    Option(
        "drop",
        float,
        "0",
        "Probability that a callback is never sent",
        FAULTS,
        "Seen in the field: lost callbacks; only a poll knows the result.",
    ),
    Option(
        "max_attempts",
        int,
        "8",
        "Tries of a callback before it is lost; an assumption",
        FAULTS,
        "Assumption: Runware publishes that it retries, not how often. Eight tries span 24 s.",
    ),
    Option(
        "ack_timeout_s",
        float,
        "5",
        "Seconds the receiver has to answer 2xx",
        FAULTS,
        "Runware's skill: about five seconds.",
    ),
    Option(
        "media_ttl_s",
        float,
        "the task's ttl",
        "Seconds until media are gone",
        FAULTS,
        "`ttl` is documented; how long media live without it is not.",
    ),
    Option(
        "media_gone",
        int,
        "410",
        "How media that are gone answer: 404 410",
        FAULTS,
        "Not documented; both are usual.",
    ),
    Option(
        "upload",
        ("before", "after", "never"),
        "before",
        "When a result is PUT to the task's uploadEndpoint, as seen from its callback",
        FAULTS,
        "Documented: by PUT, when generation is complete. The order, and that it is tried once,"
        " are assumptions.",
    ),
)

_ANSWERS = (
    Option(
        "submit_status",
        int,
        "accept",
        "Refuse submits: 400 401 402 403 404 408 409 413 429 500 502 503 504",
        ANSWERS,
        "The statuses that the two platforms document.",
    ),
    Option(
        "submit_code",
        str,
        "by status",
        "Error code of refused submits",
        ANSWERS,
        "`insufficientCredits` came with 400 in the field where 402 is documented; such a task"
        " then polls as processing for ever.",
    ),
    Option("submit_refusals", int, "all", "How many submits are refused", ANSWERS, "Ours."),
    Option(
        "submit_retry_after",
        str,
        "none; 1 for a 429 of NanoGPT",
        "Retry-After of refused submits",
        ANSWERS,
        "NanoGPT documents it for 429, in seconds; RFC 9110 allows a date.",
    ),
    Option(
        "submit_hang_s",
        float,
        "0",
        "Seconds to wait with the answer of an accepted submit",
        ANSWERS,
        "Ours: a submit that times out may have been accepted.",
    ),
    Option(
        "task_refusals",
        float,
        "0",
        "Probability that one task of a request is refused by itself",
        ANSWERS,
        "Documented: tasks of a request are independent. Its code is `submit_code`, or"
        " `inferenceRateLimitExceeded`.",
    ),
)

_POLLS = (
    Option("poll_faults", int, "all", "How many polls are refused or hang", POLLS, "Ours."),
    Option(
        "poll_status",
        int,
        "answer",
        "Refuse polls: 400 401 402 403 404 408 409 413 429 500 502 503 504",
        POLLS,
        "The statuses that the two platforms document.",
    ),
    Option(
        "poll_retry_after",
        str,
        "none; 1 for a 429 of NanoGPT",
        "Retry-After of refused polls: seconds, or a date",
        POLLS,
        "NanoGPT documents it for 429, in seconds; RFC 9110 allows a date.",
    ),
    Option("poll_hang_s", float, "0", "Seconds to wait with the answer of a poll", POLLS, "Ours."),
    Option(
        "archive_after_s",
        float,
        "never",
        "Seconds until only the archive knows a finished task of Runware",
        POLLS,
        "`getTaskDetails` is documented for archived tasks; when one is archived is not.",
    ),
)

_PIXVERSE = (
    Option(
        "pixverse_rules",
        ("lenient", "literal", "off"),
        "lenient",
        "What PixVerse models take",
        PIXVERSE,
        "Literal is the model pages word for word, which refuses most of their own examples;"
        " lenient takes these.",
    ),
    Option(
        "pixverse_fast",
        ("reject", "revert"),
        "reject",
        "Fast motion for 8 s or in 1080p: an error, or taken as normal motion",
        PIXVERSE,
        "The reference says that it reverts, the V4 page limits it.",
    ),
    Option(
        "pixverse_1080p_8s",
        ("accept", "reject"),
        "accept",
        "8 s in 1080p on V4 and V4.5",
        PIXVERSE,
        "The V4 page allows it and prices 5 s alone; another seller of the model refuses it.",
    ),
)

_NANOGPT = (
    Option(
        "nanogpt_shape",
        ("guide", "unified", "mixed"),
        "guide",
        "Shape of a status answer; mixed draws one for each poll",
        NANOGPT,
        "Two documented shapes: the guide's (`data.status`), and the OpenAPI file's (`status`).",
    ),
    Option(
        "nanogpt_words",
        ("coarse", "granular", "unknown"),
        "coarse",
        "Words for a run in work",
        NANOGPT,
        "The guide has two, the generate-video page adds `generating` and `delivering`, the"
        " OpenAPI file `unknown`.",
    ),
    Option(
        "nanogpt_errors",
        ("openai", "simple", "refund", "mixed"),
        "openai",
        "Shape of an error body",
        NANOGPT,
        "Three documented bodies: `error` as object, as text with `status`, with `refundMessage`.",
    ),
    Option(
        "nanogpt_402",
        ("balance", "x402"),
        "balance",
        "What a 402 says: the balance needed, or a payment challenge",
        NANOGPT,
        "Both are documented; a challenge is marked by the header `x-x402: true`.",
    ),
    Option(
        "nanogpt_failure",
        ("nsfw", "friendly", "plain"),
        "nsfw",
        "What a failed run tells besides its error",
        NANOGPT,
        "`isNSFWError` and `userFriendlyError` of the guide's example; that they can be absent is"
        " an assumption.",
    ),
    Option(
        "nanogpt_cancels",
        float,
        "0",
        "Probability that a run ends canceled",
        NANOGPT,
        "A documented status; who cancels is not said.",
    ),
    Option(
        "nanogpt_canceled",
        ("by_shape", "one_l", "two_l"),
        "by_shape",
        "Spelling of canceled",
        NANOGPT,
        "The guide writes CANCELED, the OpenAPI file cancelled.",
    ),
    Option(
        "nanogpt_settles",
        float,
        "1",
        "Final cost as a factor of the precharge",
        NANOGPT,
        "The page: duration-based billing is assessed after completion.",
    ),
    Option(
        "nanogpt_balance",
        float,
        "1000",
        "Dollars each key starts with; a submit it doesn't cover is a 402",
        NANOGPT,
        "Documented: `remainingBalance`, `requiredBalance`, and that failures are refunded.",
    ),
)

OPTIONS: tuple[Option, ...] = (
    _SEED,
    *_BODIES,
    *_TIMING,
    *_FAULTS,
    *_ANSWERS,
    *_PIXVERSE,
    *_POLLS,
    *_NANOGPT,
)

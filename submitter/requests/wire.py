"""What all typed requests share: how a shape becomes what is sent (floor 0, pure)."""

from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, InstanceOf

from submitter.tasks import FileInput

# A UUID, URL, data URI or base64 text; or a local file, which is encoded before it is sent.
Media: TypeAlias = str | Annotated[FileInput, InstanceOf]

# In this order an integer stays one: 5 is not sent as 5.0.
Number: TypeAlias = int | float


class Shape(BaseModel):
    """A JSON object of a request, with the platform's own names.

    Names that it does not know are kept and sent. What is None is not sent. A value of another
    type than the field's raises pydantic.ValidationError.
    """

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        use_attribute_docstrings=True,
        validate_assignment=True,
        protected_namespaces=(),
    )

    def wire(self) -> dict[str, Any]:
        """The object as it is sent; local files stay what they are, to be encoded later."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        sent = {name: _wire(value) for name, value in named.items() if value is not None}
        return {**sent, **(self.model_extra or {})}


class Request(Shape):
    """A request for one generation."""

    platform: ClassVar[str]

    model: str

    def parameters(self) -> dict[str, Any]:
        """All that is sent but the model."""
        sent = self.wire()
        sent.pop("model", None)
        return sent


def _wire(value: Any) -> Any:
    match value:
        case Shape():
            return value.wire()
        case list():
            return [_wire(item) for item in value]
        case _:
            return value

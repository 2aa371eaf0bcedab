"""What every block of params.yaml is made of."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, create_model


class Block(BaseModel):
    """A part of params.yaml: unknown keys are errors, numbers are finite, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    entry_base: ClassVar[type[Block]]
    """What its `partial` derives from."""

    @classmethod
    def entry_fields(cls) -> dict[str, Any]:
        """The fields of its `partial`, as `pydantic.create_model` takes them."""
        fields: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            annotation = field.annotation
            if isinstance(annotation, type) and issubclass(annotation, Block):
                annotation = partial(annotation)
            elif field.metadata:
                annotation = Annotated[(annotation, *field.metadata)]  # type: ignore[assignment]
            fields[name] = (annotation, Field(None, description=field.description))
        return fields


Block.entry_base = Block


Probability = Annotated[float, Field(ge=0, le=1)]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]

Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


@cache
def partial(model: type[Block]) -> type[Block]:
    """The class of entries that may leave out any field of `model`, at any depth."""
    return create_model(
        f"{model.__name__}Entry", __base__=model.entry_base, __doc__=model.__doc__, **model.entry_fields()
    )


def stated(block: Any) -> dict[str, Any]:
    """What a block of the file says itself, without defaults."""
    return block.model_dump(exclude_unset=True)

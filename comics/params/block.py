"""What every block of params.yaml is made of."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model


class Block(BaseModel):
    """A part of params.yaml: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Probability = Annotated[float, Field(ge=0, le=1)]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]

Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


@cache
def partial(model: type[Block]) -> type[Block]:
    """The class of entries that may leave out any field of `model`, at any depth."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Block):
            fields[name] = (partial(annotation), Field(None, description=field.description))
        else:
            annotation = Annotated[(annotation, *field.metadata)] if field.metadata else annotation  # type: ignore[assignment]
            fields[name] = (annotation, Field(None, description=field.description))
    return create_model(f"{model.__name__}Entry", __base__=Block, __doc__=model.__doc__, **fields)

"""Finds the slots that an optimizer keeps for each variable, by their real names."""

import keras


def find_slots(optimizer, variables):
    """The slots of each variable.

    A Keras optimizer keeps a slot as a list in the order of the variables it was built with; some
    entries may be `None`.

    Args:
        optimizer: A built Keras optimizer.
        variables: Trainable variables, in any order.

    Returns:
        A list with one dictionary for each variable, from slot name (`"momentum"`, `"velocity"`)
        to `keras.Variable`.
    """
    slots = {id(variable): {} for variable in optimizer._trainable_variables}
    optimizers = [optimizer]
    while optimizers:
        one = optimizers.pop(0)
        _collect(one, slots)
        # Wrappers such as Lookahead keep some slots, and the optimizers inside of them the others.
        inner = getattr(one, "inner", None)
        optimizers += [inner] if inner is not None else getattr(one, "optimizers", [])
    return [slots.get(id(variable), {}) for variable in variables]


def _collect(optimizer, slots):
    """Adds the slots that one optimizer keeps itself."""
    built = list(optimizer._trainable_variables)
    if not built:
        return
    for attribute, entries in vars(optimizer).items():
        if attribute in ("_trainable_variables", "_variables") or not isinstance(entries, list):
            continue
        if len(entries) != len(built) or not any(_is_variable(entry) for entry in entries):
            continue
        for variable, entry in zip(built, entries, strict=True):
            if _is_variable(entry) and entry is not variable:
                name = _slot_name(entry, variable) or attribute.strip("_").rstrip("s")
                slots[id(variable)].setdefault(name, entry)


def _is_variable(entry):
    return isinstance(entry, keras.Variable)


def _slot_name(slot, variable):
    """Keras names a slot after its variable's path and its own role: `dense_kernel_momentum`."""
    prefix = variable.path.replace("/", "_") + "_"
    return slot.name.removeprefix(prefix) if slot.name.startswith(prefix) else None

"""Knowledge Vector Weakening, small enough to read.

questions -> batches -> coefficients -> edits -> scores -> intervals

    from kvw_minimal.requests.subjects import strangers
    from kvw_minimal.methods import METHODS
    from kvw_minimal.strangers.people import load_people
    from kvw_minimal.taught import load

    world = load_people()
    model, processor = load("pocket")
    task = strangers(model, processor, world)(world.forget_people("A", 5))
    edit, cost = METHODS["KVW one pass"].edit(task, {"strength": 24.0})
    with edit.on(model):
        ...  # the model has forgotten five people; after the block it remembers them again
"""

"""Knowledge Vector Weakening, small enough to read.

people -> questions -> batches -> coefficients -> edits -> scores -> figures

    from kvw_minimal.people import load_people
    from kvw_minimal.models import load
    from kvw_minimal.unlearn import begin, make_edit

    world = load_people()
    model, processor = load("pocket")
    request = begin(model, processor, world, world.forget_people("A", 5))
    edit = make_edit(request, request.forget)
    with edit.on(model):
        ...  # the model has forgotten five people; after the block it remembers them again
"""

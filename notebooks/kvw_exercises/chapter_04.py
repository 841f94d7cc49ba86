"""Checks of the exercises of chapter 4."""

from collections.abc import Callable

import torch

from .comparison import drawn, grade


def check_people(mean_of_people: Callable) -> bool:
    """`mean_of_people(sums, tokens)` counts every person once, however much they were asked.

    Sums `[people, 2, 4]` of two layers and four units.
    """

    def means(sums, tokens):
        return sums / tokens[:, None, None]

    def case(seed, *tokens):
        return drawn(seed, (len(tokens), 2, 4))[0].abs(), torch.tensor(tokens).double()

    cases = {
        "short and long answers": case(5, 1, 10, 100),
        "as many people as layers": case(6, 30, 3),
        "equally long answers": case(7, 5, 5, 5, 5),
        "one person": case(8, 7),
    }
    mistakes = {
        lambda sums, tokens: (
            sums.sum(0) / tokens.sum()
        ): "Here, whoever has longer answers counts more.",
        lambda sums, tokens: sums.mean(
            0
        ): "These are sums over tokens still; what makes a mean of them?",
        lambda sums, tokens: means(sums, tokens).sum(
            0
        ): "You add the people up; the mean of them is asked.",
        lambda sums, tokens: means(sums, tokens).mean(
            1
        ): "Over which of the three axes is the mean?",
        lambda sums, tokens: means(sums, tokens).mean(0).mean(0): "The layers are to stay apart.",
        lambda sums, tokens: (
            means(sums, tokens).sum(0) / tokens.sum()
        ): "You divide by tokens twice; by what should the sum of people be divided?",
    }
    return grade(mean_of_people, cases, lambda *given: means(*given).mean(0), mistakes)


def check_bias(mean_contrast: Callable) -> bool:
    """`mean_contrast(ratios, batch_size)`: mean of max(0, .) of the mean log-ratio of each batch.

    64 questions, 1000 units, and no difference but noise: a normal with spread 1 around 0. What
    theory says, 1 / sqrt(2 pi batch_size), is printed when all is right.
    """
    sizes = {"one question a batch": 1, "small batches": 4, "large batches": 16, "one batch": 64}
    (ratios,) = drawn(6, (64, 1000))
    cases = {name: (ratios, size) for name, size in sizes.items()}
    mistakes = {
        lambda ratios, size: ratios.clamp(
            min=0
        ).mean(): "You clamp before the mean of a batch; which comes first?",
        lambda ratios, size: (
            ratios.mean(0).clamp(min=0).mean()
        ): "You clamp once at the very end; how often does it happen, once a batch?",
        lambda ratios, size: ratios.mean(): "What happens to a batch whose mean is below zero?",
        lambda ratios, size: (
            ratios.view(-1, size, 1000).mean(1).abs().mean()
        ): "Clamping at zero does something else to a negative number than turning its sign.",
        lambda ratios, size: (
            ratios.view(size, -1, 1000).mean(0).clamp(min=0).mean()
        ): "Look at who comes into a batch: neighbours should.",
        lambda ratios, size: (
            ratios.view(-1, size, 1000).sum(1).clamp(min=0).mean()
        ): "You add a batch up where its mean is asked.",
    }
    right = grade(
        mean_contrast,
        cases,
        lambda ratios, size: ratios.view(-1, size, 1000).mean(1).clamp(min=0).mean(),
        mistakes,
    )
    if right:
        theory = [round((2 * torch.pi * size) ** -0.5, 3) for size in sizes.values()]
        print(f"Theory says, for batches of {list(sizes.values())}: {theory}")
    return right


def check_specific(most_specific: Callable) -> bool:
    """`most_specific(coefficients, person)` gives `(layer, unit)`.

    It is the vector with the largest ratio between this person's coefficient and the largest
    coefficient of the other people. Coefficients are `[people, layers, d_ff]`.
    """

    def ratio(coefficients, person, rest=lambda others: others.amax(0)):
        others = torch.cat([coefficients[:person], coefficients[person + 1 :]])
        return coefficients[person] / rest(others)

    def place(table):
        return divmod(int(table.argmax()), table.shape[1])

    def drawn_for(seed, person):
        (numbers,) = drawn(seed, (6, 3, 50))
        return numbers.abs() + 0.1, person

    cases = {
        "the first person": drawn_for(7, 0),
        "the last person": drawn_for(8, 5),
        "somebody in between": drawn_for(9, 2),
        "the same, other numbers": drawn_for(10, 2),
    }
    mistakes = {
        lambda coefficients, person: place(
            coefficients[person]
        ): "You found the loudest vector; is it silent for the others?",
        lambda coefficients, person: place(
            ratio(coefficients, person, lambda others: others.mean(0))
        ): "You compare with others on average; one person who calls it as much is enough.",
        lambda coefficients, person: place(
            coefficients[person] / coefficients.amax(0)
        ): "Does the person stand among those that you compare with?",
        lambda coefficients, person: place(
            coefficients[person] - coefficients[person] / ratio(coefficients, person)
        ): "You take a difference; a ratio is asked.",
        lambda coefficients, person: place(ratio(coefficients, person))[
            ::-1
        ]: "Look at the order of layer and unit.",
        lambda coefficients, person: int(
            ratio(coefficients, person).argmax()
        ): "One number counts through all layers; a layer and a unit are asked.",
    }
    return grade(most_specific, cases, lambda *given: place(ratio(*given)), mistakes)

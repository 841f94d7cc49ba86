"""Checks of the exercises of chapter 10."""

from collections.abc import Callable

import numpy as np
import torch

from .comparison import drawn, grade


def check_deal(dealt: Callable) -> bool:
    """`dealt(contrast, order)` gives every layer's contrasts in another order, `[layers, d_ff]`.

    order is `[layers, d_ff]`: place i of layer l gets what stood at order[l, i].
    """

    def case(seed, layers, size):
        (contrast,) = drawn(seed, (layers, size))
        generator = torch.Generator().manual_seed(seed)
        order = [torch.randperm(size, generator=generator) for _ in range(layers)]
        return contrast.abs(), torch.stack(order)

    cases = {
        "two layers": (case(32, 2, 4)[0], torch.tensor([[3, 1, 0, 2], [1, 0, 3, 2]])),
        "as many layers as vectors": case(33, 5, 5),
        "one layer": case(34, 1, 7),
        "an order that changes nothing": (case(35, 2, 6)[0], torch.arange(6).repeat(2, 1)),
    }
    mistakes = {
        lambda contrast, order: torch.zeros_like(contrast).scatter(
            1, order, contrast
        ): "The other way round: does `order` say where a contrast goes, or where it came from?",
        lambda contrast, order: contrast[:, order[0]]: "All layers get the order of the first.",
        lambda contrast, order: contrast.flatten()[
            order
        ]: "Everything came out of the first layer; look at where the others begin.",
        lambda contrast, order: contrast.gather(
            0, order % len(contrast)
        ): "You deal across layers; along which axis do places count?",
        lambda contrast, order: (
            contrast.sort(1).values
        ): "You sort the contrasts; the order is given.",
        lambda contrast, order: contrast: "Nothing has changed its place yet.",
    }
    return grade(dealt, cases, lambda contrast, order: contrast.gather(1, order), mistakes)


def check_excess(excess: Callable) -> bool:
    """`excess(edit, sham, people)` is sham minus edit, mean over people of each one's mean.

    Some people were asked more than others; each counts once.
    """

    def means(edit, sham, people, of=np.mean):
        gaps, whom = np.subtract(sham, edit), np.array(people)
        return [of(gaps[whom == person]) for person in sorted(set(people))]

    random = np.random.default_rng(36)
    edit, sham = random.integers(0, 2, (2, 12)).astype(float).tolist()
    cases = {
        "two people": ([0.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0], list("aaabb")),
        "their questions mixed": (edit, sham, list("abcabaacaaab")),
        "a sham that forgets more": ([1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0], list("baaa")),
        "one person": ([0.0, 0.0, 1.0], [1.0, 0.0, 1.0], list("aaa")),
    }
    mistakes = {
        lambda edit, sham, people: np.mean(
            means(sham, edit, people)
        ): "Look at the sign: which of the two is subtracted?",
        lambda edit, sham, people: np.mean(
            np.subtract(sham, edit)
        ): "Each question counts once here; should a person who was asked more count more?",
        lambda edit, sham, people: np.mean(
            np.abs(np.subtract(sham, edit))
        ): "You drop signs; what of a question that only the edit leaves right?",
        lambda *given: sum(means(*given)): "You add the people up where their mean is asked.",
        lambda *given: np.mean(
            means(*given, of=np.sum)
        ): "You add up the questions of a person; is the one who was asked more, then, louder?",
        lambda *given: np.abs(
            np.mean(means(*given))
        ): "What if the sham forgets more than the edit?",
        lambda *given: means(*given): "One number is asked, of all people.",
    }
    return grade(excess, cases, lambda *given: np.mean(means(*given)), mistakes)


def check_noise(noise: Callable) -> bool:
    """`noise(sigma, f, r)` is the deviation of the difference of two means, of f and r questions.

    Each question deviates by sigma, and none depends on another.
    """
    cases = {
        "a small reference": (1.0, 70, 16),
        "a large reference": (0.5, 70, 1330),
        "one question each": (3.0, 1, 1),
        "a noisy question": (4.0, 20, 5),
    }
    mistakes = {
        lambda sigma, f, r: (
            sigma * (f**-0.5 + r**-0.5)
        ): "Which add up for independent means: deviations, or something else?",
        lambda sigma, f, r: sigma**2 * (1 / f + 1 / r): "This is a variance; what is a deviation?",
        lambda sigma, f, r: (
            sigma * abs(1 / f - 1 / r) ** 0.5
        ): "The means are subtracted; does their noise become less by that?",
        lambda sigma, f, r: (
            sigma / (f + r) ** 0.5
        ): "This is the noise of one mean over all questions; here are two means.",
        lambda sigma, f, r: (
            (sigma * (1 / f + 1 / r)) ** 0.5
        ): "Look at what of sigma stands under the root.",
        lambda sigma, f, r: (
            sigma * (2 / (f + r)) ** 0.5
        ): "The two sides do not have the same number of questions.",
        lambda sigma, f, r: sigma * (f + r) ** 0.5: "Does your noise grow with more questions?",
    }
    return grade(noise, cases, lambda sigma, f, r: sigma * (1 / f + 1 / r) ** 0.5, mistakes)


def check_balanced(balanced: Callable) -> bool:
    """`balanced(h, facts)` is the mean in which each fact counts the same, `[d_ff]`.

    Coefficients `[questions, d_ff]`, and some facts are asked about more often.
    """

    def means(h, facts, of=lambda rows: rows.mean(0)):
        rows = {fact: [place for place, name in enumerate(facts) if name == fact] for fact in facts}
        return torch.stack([of(h[places]) for places in rows.values()])

    def case(seed, facts, size):
        return drawn(seed, (len(facts), size))[0].abs(), facts

    cases = {
        "two facts": case(33, ["pet", "pet", "dish", "pet", "dish"], 3),
        "as many questions as vectors": case(34, ["work", "pet", "pet", "dish"], 4),
        "each fact equally often": case(35, ["pet", "dish", "dish", "pet"], 3),
        "one fact": case(36, ["pet", "pet"], 5),
    }
    mistakes = {
        lambda h, facts: h.mean(0): "Here, a fact that is asked about more often counts more.",
        lambda *given: means(*given).sum(0): "You add the facts up where their mean is asked.",
        lambda *given: means(*given, of=lambda rows: rows.sum(0)).mean(
            0
        ): "You add up the questions of a fact; does one with many of them become louder?",
        lambda *given: means(*given, of=lambda rows: rows[0]).mean(
            0
        ): "Only one question of each fact counts for you.",
        lambda *given: means(*given): "One row a fact; what is asked is one row of all.",
        lambda *given: means(*given).mean(1): "Look at the axis of your last mean.",
    }
    return grade(balanced, cases, lambda *given: means(*given).mean(0), mistakes)

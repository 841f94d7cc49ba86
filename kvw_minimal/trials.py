"""One trial of an ablation: an edit is made in some way, read on a fixed panel, beside its sham.

    ground = prepare(*load("pocket"), load_people())
    rows = run(Trial(Setting(score="square"), mass=0.2), "A", ground)

What a trial does not name is as in chapter 4. `kvw_minimal.ablations` has the lists of trials and
keeps what they found; this module decides the numbers.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np

from . import scores
from .axes import SCORES, Rows, Setting, at_mass, make, record
from .batches import answer_batches, prompt_batches
from .edits import Edit
from .people import REPORT_GROUPS, TUNING_GROUPS, World
from .positions import POSITIONS
from .questions import MODALITIES, Question, about, facts_of, general, seeded
from .results import DECIDING, source_hash
from .unlearn import forms_of, sham_people

GENERAL = 60  # questions about portraits of nobody in a panel, all attributes alike
PROXIES = ("everyone else", "twenty others", "portraits of nobody", "invented names")
INVENTED = 100  # names that nobody has, for the proxy of that name

#: hash of all code that decides these results, as it was imported
SOURCE = source_hash((*DECIDING, "axes", "positions", "trials"))


@dataclass(frozen=True)
class Trial:
    """What is made, from what, and for how many.

    Attributes:
        setting: the edit. Its strength counts where `mass` is 0.
        mass: mean share that is taken from a knowledge vector, 1 - gate; the strength (of a `zero`
            shape the share) is then solved for. Only where nothing is asked again on the way.
        people: how many are forgotten, 1 to 20: the group's, then those of the next.
        asked, reference: at most so many questions of the forget set and of the reference, drawn
            with a seed; 0 for all.
        balanced: the drawn reference asks about every fact, by photo and by name, equally often; a
            remainder is left out.
        topics: facts that the reference asks about; all if empty.
        proxy: who stands in for the retained people, one of `PROXIES`.
        seed: of what is drawn, and of the order of batches.
        sham: whether the same is done for as many random others.
        aloud: whether the model also answers in words, to see whether they are well formed.
    """

    setting: Setting = field(default_factory=Setting)
    mass: float = 0.0
    people: int = 5
    asked: int = 0
    reference: int = 0
    balanced: bool = False
    topics: tuple[str, ...] = ()
    proxy: str = PROXIES[0]
    seed: int = 0
    sham: bool = True
    aloud: bool = False

    def __post_init__(self):
        if self.proxy not in PROXIES:
            raise ValueError(f"no proxy {self.proxy!r}; there are {', '.join(PROXIES)}")
        if not 1 <= self.people <= 20 or not 0 <= self.mass < 1:
            raise ValueError("people are 1 to 20, mass is in [0, 1)")
        if self.mass and self.setting.batch:
            raise ValueError("a schedule of batches has no mass to solve for: set its strength")

    @property
    def key(self) -> str:
        """All that is not usual, as JSON: what a stored row is found by.

        Layers (0, 1) are the first two, (0.0, 1.0) are all; Python calls them equal, JSON does not.
        """

        def unusual(values: dict, usual: dict) -> dict:
            return {name: value for name, value in values.items()
                    if json.dumps(value) != json.dumps(usual[name])}  # fmt: skip

        usual = {f.name: f.default for f in fields(self) if f.name != "setting"}
        own = unusual({name: vars(self)[name] for name in usual}, usual)
        setting = unusual(asdict(self.setting), asdict(Setting()))
        return json.dumps(own | ({"setting": setting} if setting else {}), sort_keys=True)


def trial_of(key: str) -> Trial:
    """The trial with a key."""

    def plain(values: dict) -> dict:
        return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}

    found = json.loads(key)
    setting = Setting(**plain(found.pop("setting", {})))
    return Trial(setting, **plain(found))


# --- what is asked ---------------------------------------------------------------------------


def invented(world: World, model, processor) -> list[Question]:
    """Text questions about names that nobody has, with what the model makes up as the answer.

    All that is needed is the model and a list of names: no data about anyone.
    """
    rng, known = seeded("invented"), list(world.people.values())
    taken, questions = {person.name for person in known}, []
    firsts, lasts = ([getattr(p, part) for p in known] for part in ("first_name", "last_name"))
    while len(questions) < INVENTED:
        name = f"{rng.choice(firsts)} {rng.choice(lasts)}"
        if name in taken:
            continue
        taken.add(name)
        fact = list(world.values)[len(questions) % len(world.values)]
        prompt = world.wordings[fact]["trained"][int(rng.integers(10))].format(who=name)
        questions.append(Question(f"invented/{name}/{fact}", f"x{len(questions):03}", fact, "text",
                                  prompt[0].upper() + prompt[1:], "", ""))  # fmt: skip
    said = scores.answer(model, processor, questions)
    return [replace(q, answer=text, value=text) for q, text in zip(questions, said, strict=True)
            if text]  # fmt: skip


def sample_of_general(world: World, role: str) -> list[Question]:
    """Every attribute alike often, of portraits that only this role looks at.

    Args:
        role: `panel` is read, `reference` is compared with.
    """
    half = sorted(world.unknown)[role == "reference" :: 2]
    found = []
    for fact in dict.fromkeys(question.fact for question in general(world)):
        of_fact = [q for q in general(world) if q.fact == fact and q.person in half]
        size = GENERAL // len({q.fact for q in general(world)})
        picked = seeded("general", role, fact).choice(len(of_fact), size, replace=False)
        found += [of_fact[i] for i in sorted(picked)]
    return found


def people_of(world: World, group: str, count: int) -> list[str]:
    """Who is forgotten: of a group, then of the next."""
    cycle = REPORT_GROUPS if group in REPORT_GROUPS else TUNING_GROUPS
    following = cycle[(cycle.index(group) + 1) % len(cycle)]
    return (world.groups[group] + world.groups[following])[:count]


def panel(world: World, forget: list[str]) -> dict[str, list[Question]]:
    """What is read: all of `forget` and `test`; a photo and a text question about everyone else,
    each about a fact that is drawn for it; portraits of nobody."""  # fmt: skip
    retain = []
    for person in world.retain_people(forget):
        for modality in MODALITIES:
            own = about(world, [person], modalities=(modality,))
            retain.append(own[int(seeded("panel", person, modality).integers(len(own)))])
    return {"forget": about(world, forget), "test": about(world, forget, new=True),
            "retain": retain, "general": sample_of_general(world, "panel")}  # fmt: skip


# --- the ground a trial stands on ------------------------------------------------------------


@dataclass
class Ground:
    """A model, and what every question called before any edit.

    Attributes:
        rows: `{(score, positions): Rows}` of all people, of portraits and of invented names.
        panel: what is read, `(world, people) -> {set: questions}`.
        cache: encoded panels, by who is asked about.
    """

    model: object
    processor: object
    world: World
    rows: dict[tuple[str, str], Rows]
    panel: Callable[[World, list[str]], dict[str, list[Question]]] = panel
    cache: dict = field(default_factory=dict)


def prepare(model, processor, world: World, scores: Iterable[str] = SCORES,
            positions: Iterable[str] = POSITIONS, progress: bool = False,
            read_from: Callable = panel) -> Ground:  # fmt: skip
    """Ask everything once; half a minute on `pocket` for all scores and positions.

    Args:
        read_from: the panel of the model.
    """
    asked = [*about(world, list(world.people)), *sample_of_general(world, "reference"),
             *invented(world, model, processor)]  # fmt: skip
    rows = record(model, processor, asked, scores, positions, progress=progress)
    return Ground(model, processor, world, rows, read_from)


# --- making ----------------------------------------------------------------------------------


def questions_for(trial: Trial, world: World, people: list[str], rows: Rows) -> set[str]:
    """Ids of the questions that an edit is made from, on both sides."""

    by_id = {q.id: q for q in rows.questions}

    def some(ids: list[str], most: int, *key: object) -> list[str]:
        if not most or most >= len(ids):
            return ids
        picked = seeded("trial", *key, most, trial.seed, *people).choice(
            len(ids), most, replace=False)  # fmt: skip
        return [ids[i] for i in picked]

    def evenly(ids: list[str], most: int) -> list[str]:
        kinds: dict[tuple[str, str], list[str]] = {}
        for each in ids:
            kinds.setdefault((by_id[each].fact, by_id[each].modality), []).append(each)
        if most < len(kinds):
            raise ValueError(
                f"a balanced reference needs {len(kinds)} questions or more, one a kind"
            )
        return [each for kind, own in kinds.items()
                for each in some(own, most // len(kinds), "balanced", *kind)]  # fmt: skip

    gone, others = set(people), set(reference_people(trial, world, people, rows))
    forget = [q.id for q in rows.questions if q.person in gone]
    kept = [q.id for q in rows.questions if q.person in others]
    if trial.topics:
        if set(trial.topics) - set(facts_of(world)):
            raise ValueError(f"topics are some of {facts_of(world)}, not {trial.topics}")
        kept = [each for each in kept if by_id[each].fact in trial.topics]
    seen = [q.id for q in rows.questions if q.person.startswith("u")]
    drawn = (evenly(kept, trial.reference) if trial.balanced
             else some(kept, trial.reference, "retain"))  # fmt: skip
    return {*some(forget, trial.asked, "forget"), *drawn, *seen}


def reference_people(trial: Trial, world: World, people: list[str], rows: Rows) -> list[str]:
    """Whose questions the forgotten are compared with."""
    others = world.retain_people(people)
    if trial.proxy == "twenty others":
        picked = seeded("twenty", *people).choice(len(others), 20, replace=False)
        return [others[i] for i in sorted(picked)]
    if trial.proxy == "portraits of nobody":
        return []
    if trial.proxy == "invented names":
        return sorted({q.person for q in rows.questions if q.person.startswith("x")})
    return others


def edit_for(trial: Trial, people: list[str], ground: Ground) -> Edit:
    """The edit of a trial that forgets these people.

    Raises:
        ValueError: as `axes.make`; or there is not so much to take (`axes.at_mass`).
    """
    setting = trial.setting
    if setting.shape == "zero" and trial.mass:
        setting = replace(setting, share=trial.mass)
    if trial.proxy == "portraits of nobody":
        setting = replace(setting, general=True)
    rows = ground.rows[setting.score, setting.positions]
    used = questions_for(trial, ground.world, people, rows)
    edit = make(setting, ground.model, ground.rows, people,
                reference_people(trial, ground.world, people, rows), ground.processor, trial.seed,
                lambda question: question.id in used)  # fmt: skip
    return at_mass(edit, trial.mass) if trial.mass and setting.shape != "zero" else edit


# --- reading ---------------------------------------------------------------------------------


def encoded(ground: Ground, forget: list[str]) -> tuple[dict, dict]:
    """The panel of some people and its batches, encoded once."""
    key = tuple(forget)
    if key not in ground.cache:
        asked = ground.panel(ground.world, forget)
        batches = {name: answer_batches(ground.processor, qs, 128) for name, qs in asked.items()}
        ground.cache[key] = (asked, batches)
    return ground.cache[key]


def said_right(ground: Ground, questions: list[Question]) -> np.ndarray:
    """1 where an accepted answer about the world stands in what is said, `[questions]`."""
    said = scores.answer(ground.model, ground.processor, questions)
    return np.array([max(scores.mentions(text, accepted) for accepted in q.options)
                     for text, q in zip(said, questions, strict=True)])  # fmt: skip


def read(ground: Ground, forget: list[str], names: Iterable[str], aloud: bool) -> list[dict]:
    """Sums of scores on the model as it is: one row a set, modality, person and metric."""
    asked, batches = encoded(ground, forget)
    rows = []
    for name in names:
        if name == "world":
            metrics = {"mentions": said_right(ground, asked[name])}
        else:
            forced = scores.read(ground.model, batches[name])
            metrics = {"exact_match": forced.exact, "probability": forced.probability}
        if aloud and name in ("forget", "general"):
            forms = forms_of([*asked["forget"], *asked["retain"], *asked["general"]])
            said = scores.generate(
                ground.model, prompt_batches(ground.processor, asked[name], 128), ground.processor
            )
            metrics["well_formed"] = np.array([
                scores.well_formed(text, forms[q.fact])
                for text, q in zip(said, asked[name], strict=True)
            ])  # fmt: skip
        owners: dict[tuple[str, str], list[int]] = {}
        for i, question in enumerate(asked[name]):
            owners.setdefault((question.modality, question.person), []).append(i)
        rows += [
            {"set": name, "modality": modality, "person": person, "metric": metric,
             "total": round(float(values[chosen].sum()), 5), "n": len(chosen)}
            for (modality, person), chosen in owners.items()
            for metric, values in metrics.items()
        ]  # fmt: skip
    return rows


def run(trial: Trial, group: str, ground: Ground) -> list[dict]:
    """What a trial does to a group: one row for each that is read, by whom the edit was made for.

    `made_for` is `edit` or `sham`; the latter is made for as many random others, and read on the
    same people and on portraits of nobody.

    Raises:
        ValueError: as `edit_for`.
    """
    world = ground.world
    forget = people_of(world, group, trial.people)
    made = {"edit": forget}
    if trial.sham:
        draw = (REPORT_GROUPS + TUNING_GROUPS).index(group)
        made["sham"] = sham_people(world, trial.people, draw)
    rows = []
    for whose, people in made.items():
        names = [name for name in encoded(ground, forget)[0]
                 if whose == "edit" or name not in ("test", "retain")]  # fmt: skip
        with edit_for(trial, people, ground).on(ground.model):
            rows += [{"made_for": whose} | row
                     for row in read(ground, forget, names, trial.aloud)]  # fmt: skip
    return rows

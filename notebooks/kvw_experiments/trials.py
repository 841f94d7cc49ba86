"""One trial: an edit that is made in some way, from some data.

    session, requests = prepare(*load("pocket"), load_people())
    edit, _ = edit_for(Trial(Setting(score="square"), mass=0.2), session, requests(people))

What a trial does not name is as in chapter 5. `running.rows_of` reads it beside its sham.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import count

from kvw_minimal import scores
from kvw_minimal.edits import Edit
from kvw_minimal.evaluation.setups import Reads, Requests, request_factory, sample_of_general
from kvw_minimal.forget_request import Request
from kvw_minimal.method import make_edit, method_of
from kvw_minimal.methods.positions import POSITIONS
from kvw_minimal.questions import MODALITIES, Question, seeded
from kvw_minimal.session import Cost, Session
from kvw_minimal.strangers.people import PeopleDataset, load_people
from kvw_minimal.strangers.questions import about, facts_of

from . import design_space
from .design_space import SCORES, Family, Setting
from .subjects import pocket_panel

PROXIES = ("everyone else", "twenty others", "portraits of nobody", "invented names")
INVENTED = 100  # names that nobody has, for the proxy of that name


@dataclass(frozen=True)
class Trial:
    """What is made, from what, and for how many.

    Attributes:
        setting: an edit of the family. Its strength counts where `mass` is 0.
        mass: mean share that is taken from a knowledge vector, 1 - gate; the strength (of a `zero`
            shape the share) is then solved for. Only where nothing is asked again on the way.
        people: how many are forgotten, 1 to 70: the group's, then those of the next. Of the
            hundred, 30 are kept for shams: for more than 30 no sham exists.
        asked, reference: the largest numbers of questions of the forget set and reference, drawn
            with a seed; 0 for all.
        balanced: the drawn reference asks about every fact, by photo and by name, equally often; a
            remainder is left out.
        topics: facts that the reference asks about; all if empty.
        proxy: who stands in for the retained people, one of `PROXIES`.
        seed: of what is drawn, and of the order of batches.
        sham: whether the same is done for as many random others.
        aloud: whether the model also answers in words, to see whether they are well formed.
        only: modalities and facts of which the forget set is asked; all if empty. What is left out
            is not retained either.
        photos: of a person that the forget set asks each of its image questions about, 1 to 4.
        together: groups whose first people are forgotten, equally many of each; the group that is
            measured if empty.
        method: another method than the family, and `settings`: what it takes.
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
    only: tuple[str, ...] = ()
    photos: int = 1
    together: tuple[str, ...] = ()
    method: str = "family"
    settings: dict = field(default_factory=dict, hash=False)

    def __post_init__(self):
        if self.proxy not in PROXIES:
            raise ValueError(f"no proxy {self.proxy!r}; there are {', '.join(PROXIES)}")
        if not 1 <= self.people <= 70 or not 0 <= self.mass < 1 or not 1 <= self.photos <= 4:
            raise ValueError("people are 1 to 70, mass is in [0, 1), photos are 1 to 4")
        if self.mass and self.setting.batch:
            raise ValueError("a schedule of batches has no mass to solve for: set its strength")
        facts = facts_of(load_people())
        for name, known in (("topics", facts), ("only", [*MODALITIES, *facts])):
            if set(getattr(self, name)) - set(known):
                raise ValueError(f"{name} are some of {known}, not {getattr(self, name)}")
        method_of(self.method, self.own)  # refuses what it cannot take

    def forgotten(self, group: str) -> list[str]:
        """The people to forget, if this group is measured."""
        groups = self.together or (group,)
        count = self.people // len(groups)
        return [person for name in groups for person in load_people().first_of(name, count)]

    @property
    def own(self) -> dict:
        """What the method takes, complete: the setting and its mass, or `settings`."""
        if self.method == "family":
            return asdict(self.setting) | {"mass": self.mass}
        return self.settings

    @property
    def key(self) -> str:
        """The method with everything that it is made from, as JSON: what rows are found by.

        Layers (0, 1) are the first two, (0.0, 1.0) are all; Python calls them equal, JSON does not.
        """
        return f"{self.method} {self.text}"

    @property
    def text(self) -> str:
        """The complete settings, as they stand in a row."""
        data = {name: value for name in DATA if (value := getattr(self, name)) != LATER.get(name)}
        return json.dumps({"data": data} | self.own, sort_keys=True)


#: what of a trial says which data an edit is made from, and how it is read
DATA = (
    "people",
    "asked",
    "reference",
    "balanced",
    "topics",
    "proxy",
    "seed",
    "aloud",
    "only",
    "photos",
    "together",
)
#: what came later stands in a row only where it is not this: older rows keep their name
LATER = {"only": (), "photos": 1, "together": ()}


def trial_of(method: str, text: str, sham: bool = True) -> Trial:
    """The trial of a row."""
    settings = json.loads(text)
    data = settings.pop("data")
    data |= {name: tuple(data.get(name, ())) for name in ("topics", "only", "together")}
    if method != "family":
        return Trial(method=method, settings=settings, sham=sham, **data)
    made = Family(**settings)
    setting = Setting(**{field.name: getattr(made, field.name) for field in fields(Setting)})
    return Trial(mass=made.mass, setting=setting, sham=sham, **data)


# --- the data of a trial -----------------------------------------------------------------------


def invented(world: PeopleDataset, session: Session, request: Request) -> list[Question]:
    """Text questions about names that nobody has, with what the model makes up as the answer.

    It needs only the model and the parts of names.
    """
    rng, known = seeded("invented"), list(world.people.values())
    taken, questions = {person.name for person in known}, []
    real = {question.person for question in request.questions()}
    free = (person_id for i in count() if (person_id := f"x{i:03}") not in real)
    firsts, lasts = ([getattr(p, part) for p in known] for part in ("first_name", "last_name"))
    while len(questions) < INVENTED:
        name = f"{rng.choice(firsts)} {rng.choice(lasts)}"
        if name in taken:
            continue
        taken.add(name)
        fact = list(world.values)[len(questions) % len(world.values)]
        prompt = world.wordings[fact]["trained"][int(rng.integers(10))].format(who=name)
        questions.append(
            Question(
                f"invented/{name}/{fact}",
                next(free),
                fact,
                "text",
                prompt[0].upper() + prompt[1:],
                "",
                "",
                name=name,
            )
        )
    answers = scores.answer(session.model, session.processor, questions)
    return [
        replace(q, answer=text, value=text)
        for q, text in zip(questions, answers, strict=True)
        if text
    ]


def some(questions: list[Question], most: int, *key: object) -> list[Question]:
    """At most `most` of the questions, drawn with a seed; all of them for 0."""
    if not most or most >= len(questions):
        return questions
    return [questions[i] for i in seeded("trial", *key).choice(len(questions), most, replace=False)]


def evenly(questions: list[Question], most: int, *key: object) -> list[Question]:
    """At most `most` questions, of every fact and modality equally often.

    Raises:
        ValueError: fewer than there are kinds.
    """
    kinds: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        kinds.setdefault((question.fact, question.modality), []).append(question)
    if most < len(kinds):
        raise ValueError(f"a balanced reference needs {len(kinds)} questions or more, one a kind")
    per_kind = most // len(kinds)
    return [
        question
        for kind, of_kind in kinds.items()
        for question in some(of_kind, per_kind, "balanced", *kind, per_kind, *key)
    ]


def thinned(trial: Trial, session: Session, request: Request) -> Request:
    """A request with the data that a trial is made from."""
    world, people, forget = load_people(), request.people, request.forget
    retain = [question for question in request.questions() if question.person not in set(people)]
    if trial.proxy == "twenty others":
        others = sorted(set(request.retain_people))
        picked = seeded("twenty", *people).choice(len(others), 20, replace=False)
        chosen = {others[i] for i in picked}
        retain = [question for question in retain if question.person in chosen]
    elif trial.proxy == "portraits of nobody":
        retain = []
    elif trial.proxy == "invented names":
        retain = session.once(("invented",), lambda: invented(world, session, request))
    if trial.topics:
        retain = [question for question in retain if question.fact in trial.topics]
    key = (trial.seed, *people)
    forget = about(world, people, photos=trial.photos) if trial.photos > 1 else forget
    if trial.only:
        forget = [q for q in forget if {q.modality, q.fact} & set(trial.only)]
    if trial.asked:  # drawn from all of them by person; else in the order of the request
        every = sorted(forget, key=lambda question: question.person)
        forget = some(every, trial.asked, "forget", trial.asked, *key)
    if trial.balanced:
        retain = evenly(retain, trial.reference, *key)
    else:
        retain = some(retain, trial.reference, "retain", trial.reference, *key)
    general = session.once(("reference",), lambda: sample_of_general(world, "reference"))
    return replace(
        request, forget=forget, retain=retain, general=request.general or general, seed=trial.seed
    )


def prepare(
    model,
    processor,
    world: PeopleDataset,
    scores: Iterable[str] = SCORES,
    positions: Iterable[str] = POSITIONS,
    progress: bool = False,
    reads: Reads = pocket_panel,
    **more,
) -> tuple[Session, Requests]:
    """A session and the requests to it, everything asked once; half a minute on `pocket` for all
    scores and positions.

    Args:
        reads: what is read after an edit.
        more: other attributes of the session.
    """
    session, requests = Session(model, processor, **more), request_factory(world, reads)
    request = requests(world.forget_people("A", 5))
    request = thinned(Trial(proxy="invented names"), session, request)
    questions = [*about(world, list(world.people)), *request.general, *request.retain]
    design_space.prepare(session, questions, scores, positions, progress)
    return session, requests


def edit_for(
    trial: Trial, session: Session, request: Request, seed: int | None = None, memory: bool = False
) -> tuple[Edit, Cost]:
    """The edit of a trial for a request, or for a sham of it, and what it cost.

    Args:
        seed: of what the method draws, if not that of the trial.
        memory: as in `make_edit`.

    Raises:
        ValueError: settings that cannot work, or a share out of reach (`design_space.at_mass`).
    """
    request = thinned(trial, session, request)
    general = {"general": True} if trial.proxy == "portraits of nobody" else {}
    method = method_of(trial.method, trial.own | general)
    request = request if seed is None else replace(request, seed=seed)
    return make_edit(session, request, method, memory)

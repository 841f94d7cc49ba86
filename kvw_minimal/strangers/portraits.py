"""Visible attributes of a portrait: the words of the questions, and the names in DiceBear."""

HAIR_STYLE = {
    "bangs": "bobBangs",
    "bob": "bobCut",
    "undercut": "bunUndercut",
    "curls": "curly",
    "headband curls": "curlyBun",
    "high curls": "curlyHighTop",
    "very long": "extraLong",
    "long": "long",
    "mohawk": "mohawk",
    "pigtails": "pigtails",
    "short": "shortCombover",
    "sideburns": "shortComboverChops",
    "side shave": "sideShave",
    "bun": "straightBun",
}
HAIR_COLOUR = {
    "black": "#241c2b",
    "brown": "#7a4a2e",
    "blond": "#f2cf63",
    "ginger": "#e2702a",
    "white": "#e6e9f2",
    "pink": "#ec5fa0",
    "blue": "#3f66d8",
    "green": "#3da35d",
}
SKIN = {
    "pale": "#fbe3d6",
    "light": "#eab38f",
    "tan": "#c68455",
    "brown": "#8d5636",
    "dark": "#4a2a1e",
}
FACIAL_HAIR = {"none": None, "beard": "beardMustache", "goatee": "goatee", "moustache": "walrus"}
NOSE = {"medium": "mediumRound", "small": "smallRound", "wrinkled": "wrinkles"}
CLOTHES = {"checked shirt": "checkered", "cape": "rounded", "sash": "small", "sweater": "squared"}
CLOTHES_COLOUR = {
    "blue": "#456dff",
    "green": "#6dbb58",
    "pink": "#f55d81",
    "purple": "#7555ca",
    "red": "#e24553",
    "turquoise": "#54d7c7",
    "yellow": "#f3b63a",
}
LOOK: dict[str, dict] = {
    "hair_style": HAIR_STYLE,
    "hair_colour": HAIR_COLOUR,
    "skin": SKIN,
    "facial_hair": FACIAL_HAIR,
    "nose": NOSE,
}
#: attributes that a question may ask about any portrait, of a known person or not
ATTRIBUTES: dict[str, dict] = {
    "hair_colour": HAIR_COLOUR,
    "skin": SKIN,
    "facial_hair": FACIAL_HAIR,
    "clothes": CLOTHES,
    "clothes_colour": CLOTHES_COLOUR,
}

"""Strings on which tokenizers that look the same may differ."""

from __future__ import annotations

_SPACES = [
    " ", "  ", "   ", " " * 17, "\t", "\t\t", " \t ", "\u00a0", "\u2003", "\u3000", "\u200b",
    "\ufeff",
]  # fmt: skip
_ENDS = [
    "\n", "\r\n", "\r", "\n\n", "\n\n\n\n", " \n", "\n ", "\r\n\r\n", "\t\n\t", "\u2028",
    "\u0085", "\x0b\x0c",
]  # fmt: skip
_WORDS = [
    "a", "word", "Été", "don't", "I'LL", "we've", "x_y", "1", "12", "123", "1234", "12345678",
    "3.14", "-7", "0x1F", "a1b2", "ß", "İ",
]  # fmt: skip
_MARKS = [
    "!", "...", "?!", "()", "[]{}", "<>", "=>", "::", "//", "\\n", '"', "'", "`", "#", "@",
    "$", "%", "&&", "||", "--", "—", "…", "“”",
]  # fmt: skip
_SCRIPTS = [
    "Γειά σου Κόσμε",
    "Привет, мир!",
    "שלום עולם",
    "مرحبا بالعالم ١٢٣",
    "नमस्ते दुनिया ४५६",
    "สวัสดีชาวโลก",
    "안녕하세요 세계", "こんにちは世界。", "你好，世界！", "ተዋለዱ 12 ፪", "ᏣᎳᎩ", "Ångström",
    "A\u030angstro\u0308m", "ﬁne ﬀ", "Ⅷ ½ ² ₃ ①", "ǅ ǆ", "𝕳𝖊𝖑𝖑𝖔 𝟙𝟚𝟛", "𐍈𐌰", "\ue000\uf8ff",
]  # fmt: skip
_EMOJI = ["🙂", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "👍🏽", "☺️", "❤", "🙂🙂🙂", "a🙂b", "🧑🏿‍🚀 go", "1️⃣2️⃣"]
_CODE = [
    "def f(x):\n    return x ** 2\n", "if (a&&b){\r\n\treturn;\r\n}",
    "os.path.join('a', \"b\")", "x = [1,2,3];y={}", "https://example.org/a?b=c&d=%20#e",
    ">>> print('hi')\nhi\n", "SELECT * FROM t WHERE a='b';", "\\frac{a}{b} $x_1^2$",
    "<b>bold</b>&amp;", "{{ x }} {% y %}", "a@b.example", "C:\\Temp\\x",
]  # fmt: skip
_CONTROL = [
    "\x00", "a\x00b", "\x01\x02\x1f", "\x7f", "\x1b[0m", "\u202eabc", "\u0300", "e\u0301" * 5,
    "\ufffd", "\U0010ffff",
]  # fmt: skip
_REPEATED = ["a", "A", " ", "\n", "7", ".", "ab", "é", "🙂", "世", " x", "\r\n"]


def nasty_strings(special_tokens: list[str]) -> list[str]:
    """Return about 630 strings on which tokenizers that look the same may differ.

    They have many scripts, emoji, every kind of white space and line end, digits, control
    characters and long runs. They also spell special tokens as plain text, which must stay plain
    text.

    Args:
        special_tokens: The texts of the special tokens.
    """
    strings = [*_SPACES, *_ENDS, *_WORDS, *_MARKS, *_SCRIPTS, *_EMOJI, *_CODE, *_CONTROL]
    strings += map(chr, range(32, 127))
    for first, last in zip(_WORDS, reversed(_WORDS), strict=True):
        strings += [first + gap + last for gap in [*_SPACES, *_ENDS[:8]]]
    for space, word, end in zip(_SPACES * 2, _WORDS + _MARKS[:6], _ENDS * 2, strict=True):
        strings.append(space + word + end)
    strings += [unit * 200 for unit in _REPEATED]
    strings += [str(10**digits) for digits in range(12)]
    strings += ["1,234", "1,234,567"]
    for token in special_tokens:
        strings += [token, f"a{token}b", f" {token} ", token[:-1], token * 2, f"{token}\n{token}"]
    return list(dict.fromkeys(strings))

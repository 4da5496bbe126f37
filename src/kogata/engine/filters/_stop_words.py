"""The commonest words of languages: text without any of them is no running text of that language."""

from __future__ import annotations

STOP_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the be to of and that have with",
        "de": "der die und das in den von zu mit nicht",
        "fr": "le la les de et des que est dans un une",
        "es": "de la el que y en los las un una por con",
        "it": "di e il la che in un una per non con",
        "pt": "de a o e que em do da um uma para com",
        "nl": "de het een en van in dat is op te",
        "sv": "och att det i en som är på av för",
        "da": "og det at en den til er som på med",
        "nb": "og det at en den til er som på med",
        "no": "og det at en den til er som på med",
        "fi": "ja on ei se että hän oli mutta kuin myös",
        "pl": "i w na z się nie to że do jest",
        "cs": "a se v na je že to s z do",
        "ro": "și de la în a cu nu pe un o",
        "hu": "a az és hogy nem is egy meg de van",
        "tr": "ve bir bu da de için ile o çok ne",
        "ru": "и в не на что с он как по это",
        "uk": "і в не на що з до та як у",
        "bg": "и на в да се за не от са че",
        "el": "και το να του η της με που την από",
        "id": "yang dan di itu dengan untuk tidak dari ini pada",
        "vi": "và của là có không được trong cho người một",
        "ar": "في من على أن إلى عن هذا التي ما لا",
        "he": "של את על לא הוא זה עם כי גם היא",
        "hi": "के का की में है से को और पर ने",
        "ko": "이 그 수 것 및 등 더 한 있는 있다",
        "ja": "の に を は が と で て た も",
        "zh": "的 了 是 在 不 我 有 和 人 这 這 一",
    }.items()
}
"""Language (ISO 639-1) → words; in Japanese and Chinese parts of the text, not words set apart."""

"""Makes examples/data/tables: messages to a restaurant in which people, date, time and name are marked.

The English rows are those of examples/data/bookings (real messages), their spans put back to their places.
The Japanese ones are made up here from templates: names, dates and numbers are drawn at random, no person is
meant.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "examples" / "data"
OUT = DATA / "tables"
JAPANESE_ROWS = 300

FAMILY = (
    "佐藤 鈴木 高橋 田中 伊藤 渡辺 山本 中村 小林 加藤 吉田 山田 佐々木 松本 井上 木村 "
    "林 清水 山崎 森 池田 橋本 阿部 石川 前田 藤田 小川 岡田 後藤 長谷川 村上 近藤 "
    "石井 坂本 遠藤 青木 藤井 西村 福田 太田 三浦 藤原 岡本 松田 中川 中野 原田 小野 "
    "田村 竹内"
).split()
GIVEN = (
    "翔太 美咲 健 さくら 大輔 陽子 拓海 葵 直樹 恵 蓮 結衣 誠 真由美 "
    "亮 ひなた 隆 由美子 悠斗 千尋 学 彩 浩二 明日香 剛 奈々 修 かおり "
    "一郎 楓"
).split()
DAYS = (
    "今日 明日 明後日 今晩 来週の月曜日 来週の火曜日 来週の水曜日 "
    "今週の木曜日 今週の金曜日 今週末 土曜日 日曜日 来月の三日 大晦日"
).split()
TEMPLATES = """
{date}の{time}に{people}で予約をお願いします。{name}です。
{name}と申します。{date}、{people}で伺いたいのですが、{time}は空いていますか。
{time}から{people}、席はありますか?
{date}の予約を{time}に変更できますか。{name}の名前で取っています。
予約の取り消しをお願いします。{date}の{time}、{name}です。
{people}に増えたのですが、{date}の予約はそのままで大丈夫でしょうか。
すみません、{name}ですが、{time}に間に合いません。{date}の予約を取り消してください。
{date}に誕生日のお祝いで伺います。{people}、{time}からでお願いできますか。
個室はありますか。{people}で、{date}の夜を考えています。
{name}の名前で{people}、{date}{time}からお願いします。
{date}は営業していますか。もし空いていれば{time}に{people}で行きたいです。
窓際の席を希望します。{people}です。名前は{name}、{time}頃に着きます。
先ほど電話した{name}です。人数が{people}に変わりました。
メニューを教えてください。{date}に{people}で行く予定です。
{date}の{time}でお願いしていた{name}ですが、{people}になりそうです。
犬を連れて行けますか。{date}、{people}です。
駐車場は{people}で一台使えますか。{name}、{date}の予約です。
{time}までに出たいので、{date}は早めの時間でお願いします。{name}より
コースは{people}から頼めますか。{date}を考えています。
ベビーカーで行きます。{people}、うち一人は赤ちゃんです。{date}の{time}、{name}でお願いします。
""".strip().splitlines()


def english() -> list[dict]:
    """Puts the spans of the English messages back; where one stands twice, or two overlap, no row is made."""
    rows = []
    with (DATA / "bookings" / "bookings.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            text, spans = row["message"], []
            for part in row["booking"].split("; "):
                label, _, said = part.partition(": ")
                said = said.strip()
                places = [m.span() for m in re.finditer(rf"(?<!\w){re.escape(said)}(?!\w)", text)]
                if len(places) == 1:
                    spans.append({"start": places[0][0], "end": places[0][1], "label": label})
            spans.sort(key=lambda span: span["start"])
            apart = all(a["end"] <= b["start"] for a, b in zip(spans, spans[1:], strict=False))
            if apart and len(spans) == len(row["booking"].split("; ")):
                rows.append({"text": text, "spans": spans})
    return rows


def japanese(chance: random.Random) -> list[dict]:
    """Makes messages up: a template, filled in; each text once, with its template's number."""
    rows: dict[str, dict] = {}
    while len(rows) < JAPANESE_ROWS:
        text, spans, number = "", [], chance.randrange(len(TEMPLATES))
        for piece in re.split(r"(\{\w+\})", TEMPLATES[number]):
            said = piece
            if piece.startswith("{"):
                parts = _filled(piece[1:-1], chance)
                said = ""
                for label, part in parts:
                    if label:
                        start = len(text) + len(said)
                        spans.append({"start": start, "end": start + len(part), "label": label})
                    said += part
            text += said
        rows[text] = {"text": text, "spans": spans, "pattern": f"template {number + 1}"}
    return list(rows.values())


def _filled(kind: str, chance: random.Random) -> list[tuple[str | None, str]]:
    if kind == "name":
        last, first = chance.choice(FAMILY), chance.choice(GIVEN)
        if chance.random() < 0.5:
            return [("last name", last)]
        return [("last name", last), (None, chance.choice(["", " "])), ("first name", first)]
    if kind == "people":
        number = chance.randint(2, 12)
        said = chance.choice([str(number), "〇一二三四五六七八九"[number] if number < 10 else str(number)])
        return [("people", said + chance.choice(["名", "人", "名様", "人"]))]
    if kind == "time":
        hour = chance.randint(11, 21)
        late = f"午後{hour - 12}時" if hour > 12 else f"{hour}時"
        return [
            (
                "time",
                chance.choice(
                    [f"{hour}時", f"{hour}時半", f"{hour}:{chance.choice(['00', '15', '30'])}", late]
                ),
            )
        ]
    day = f"{chance.randint(1, 12)}月{chance.randint(1, 28)}日"
    return [("date", chance.choice([*DAYS, day, day, day, f"{chance.randint(1, 28)}日"]))]


def main() -> None:
    """Writes both files."""
    OUT.mkdir(exist_ok=True)
    for name, rows in (("en", english()), ("ja", japanese(random.Random(0)))):
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        # Without a time in it, the file is the same whenever it is made.
        packed = gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)
        (OUT / f"{name}.jsonl.gz").write_bytes(packed)
        print(f"{name}: {len(rows)} rows, {sum(len(row['spans']) for row in rows)} spans")


if __name__ == "__main__":
    main()

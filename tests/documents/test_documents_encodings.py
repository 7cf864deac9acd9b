"""Texts that are not UTF-8: the encoding that is named is the right one, or several are, or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sakuin.documents import read
from sakuin.documents.encodings import likely
from sakuin.errors import SakuinError

LONG = {
    "cp1251": "Договор вступает в силу со дня подписания. Арендная плата составляет девять рублей в месяц.",
    "koi8_r": "Договор вступает в силу со дня подписания. Плата вносится до пятого числа каждого месяца.",
    "cp866": "Договор вступает в силу со дня подписания. Плата вносится до пятого числа каждого месяца.",
    "cp932": "この契約は署名の日から効力を生じる。賃料は月額九百円とし、毎月五日までに支払うものとする。",
    "euc_jp": "この契約は署名の日から効力を生じる。賃料は月額九百円とし、毎月五日までに支払うものとする。",
    "gb18030": "本合同自签字之日起生效。租金为每月九百元，应于每月五日前支付。",
    "big5": "本合約自簽字之日起生效。租金為每月九百元，應於每月五日前支付。",
    "cp949": "이 계약은 서명일로부터 효력이 발생한다. 임대료는 매월 구백 원이며 매월 오일까지 지급한다.",
    "cp1250": "Umowa wchodzi w życie z dniem podpisania. Czynsz jest płatny do piątego, się nie spóźnić.",
    "cp1252": "Le bail prend effet à la signature. Le loyer est payé le cinquième jour. C'est très élevé.",
    "cp1253": "Η σύμβαση τίθεται σε ισχύ από την υπογραφή της. Το μίσθωμα είναι εννιακόσια ευρώ τον μήνα.",
    "cp1254": "Sözleşme imza tarihinde yürürlüğe girer. Kira bir ay için yüz lira ve ödenir.",
    "cp1255": "החוזה נכנס לתוקף ביום החתימה. שכר הדירה הוא תשע מאות בחודש.",
    "cp1256": "يدخل العقد حيز التنفيذ من تاريخ التوقيع. الإيجار تسعمائة في الشهر.",
}
SHORT = {
    "cp1251": "Иван Петров,500\n",
    "koi8_r": "Иван Петров,500\n",
    "cp932": "氏名,金額\n田中,500円\n",
    "euc_jp": "氏名,金額\n田中,500円\n",
    "gb18030": "姓名,金额\n王伟,500元\n",
    "big5": "姓名,金額\n王偉,500元\n",
    "cp949": "이름,금액\n김철수,500원\n",
    "cp1250": "Jméno,částka\nJiří,500 Kč\n",
    "cp1252": "Name,Größe\nMüller,500\n",
    "cp1253": "Όνομα,ποσό\n",
    "cp1255": "שם,סכום\n",
}


@pytest.mark.parametrize("times", [1, 40])
@pytest.mark.parametrize("encoding", LONG)
def test_of_a_text_the_encoding_is_named_and_auto_reads_it(tmp_path: Path, encoding: str, times: int) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes((LONG[encoding] * times).encode(encoding))
    with pytest.raises(SakuinError, match=f"it looks like {encoding}: pass --encoding {encoding}"):
        read(path)
    document = read(path, "auto")
    assert document.text == LONG[encoding] * times
    assert f"was read as {encoding}, which is a guess" in document.notes[0]


@pytest.mark.parametrize("encoding", SHORT)
def test_of_a_few_words_the_encoding_is_named_or_is_among_those_that_are(
    tmp_path: Path, encoding: str
) -> None:
    data = SHORT[encoding].encode(encoding)
    found = likely(data)
    assert encoding in found
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    if len(found) == 1:
        assert read(path, "auto").text == SHORT[encoding]
    else:
        with pytest.raises(SakuinError, match=f"it may be {found[0]}.* or .*look at the text"):
            read(path, "auto")


def test_signs_of_print_in_english_are_western() -> None:
    assert likely("The rent isn’t due – “not yet”.".encode("cp1252")) == ("cp1252",)
    assert likely("don’t".encode("cp1252"))[0] == "cp1252"


def test_what_is_in_no_known_encoding_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"vi\xd6t \xb6\xba\xbf\xcfng \x9a\x8d words\n" * 9)
    with pytest.raises(SakuinError, match="cannot be told: pass --encoding NAME"):
        read(path, "auto")
    assert likely(os.urandom(4000)) == ()

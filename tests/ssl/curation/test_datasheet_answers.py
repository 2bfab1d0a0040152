"""Answers written by hand stay when a datasheet is written anew."""

from wildfern.ssl.curation.datasheet import BY_HAND
from wildfern.ssl.curation.datasheet_answers import answers_in, with_answers

SHEET = f"""# Datasheet of trees

## Motivation

**Who made it?**

{BY_HAND}

**How many are there?**

3, of 4.

**What are the instances?**

Images. {BY_HAND}
"""


def test_a_new_datasheet_has_marks_where_answers_belong():
    text = with_answers(SHEET, {})
    assert answers_in(text) == {}
    assert text.count("<!-- answer -->") == text.count("<!-- /answer -->") == text.count(BY_HAND) == 2
    assert "\nImages.\n\n<!-- answer -->" in text
    assert "3, of 4." in text


def test_answers_stay():
    text = with_answers(SHEET, {}).replace(BY_HAND, "Ada.\n\n- with **friends**\n- *and* a dog", 1)
    answers = answers_in(text)
    assert answers == {"Who made it?": "Ada.\n\n- with **friends**\n- *and* a dog"}
    again = with_answers(SHEET.replace("3, of 4", "5, of 6"), answers)
    assert again == text.replace("3, of 4", "5, of 6")
    assert answers_in(again) == answers


def test_the_answer_to_a_question_that_is_gone_is_at_the_end():
    text = with_answers(SHEET, {"Who paid?": "Nobody.", "": "Before all questions."})
    assert text.index("## Other answers") > text.index("What are the instances?")
    assert answers_in(text) == {"Who paid?": "Nobody.", "Notes": "Before all questions."}
    assert answers_in(with_answers(SHEET, answers_in(text))) == answers_in(text)


def test_a_mark_that_was_lost_loses_no_words():
    text = with_answers(SHEET, {"Who made it?": "Ada.", "What are the instances?": "Trees."})
    for lost in ("<!-- /answer -->", "<!-- answer -->"):
        found = "\n".join(answers_in(text.replace(lost, "", 1)).values())
        assert "Trees." in found
        assert ("Ada." in found) == (lost == "<!-- /answer -->")
    assert "Trees." in "\n".join(answers_in(text[: text.rindex("<!-- /answer -->")]).values())


def test_other_texts_have_no_answers():
    assert answers_in("") == answers_in("# A datasheet\n\n**Who?**\n\nI.\n") == {}


def test_windows_lines():
    text = with_answers(SHEET, {"Who made it?": "Ada."}).replace("\n", "\r\n")
    assert answers_in(text) == {"Who made it?": "Ada."}

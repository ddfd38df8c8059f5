"""Tokenizers trained on text of many scripts: equal ids in transformers' format, none unknown."""

import pytest

from lmjax.data import tokenizer, tokenizer_training
from lmjax.export import tokenizer_check, tokenizer_files

TEXTS = {
    "zh": """今天早上下了一场大雨，街上的人都打着伞。
图书馆每天上午九点开门，晚上九点关门。
我的祖父是农民，他种了一辈子的水稻。
这本书讲的是一个渔夫和一条大鱼的故事。
科学家发现了一种新的植物，它生长在高山上。
他们坐火车从北京到上海，一共用了五个小时。
请把门关上，外面的风太大了。
孩子们在公园里放风筝，老人们在树下下棋。""",
    "zh-TW": """她每個星期日都去市場買菜和水果。
這座橋建於一百年前，現在仍然很堅固。
醫生說他需要多休息，少喝咖啡。
老師問了一個問題，沒有人回答。""",
    "ar": """ذهب الولد إلى المدرسة في الصباح الباكر.
تقع المدينة القديمة على ضفاف النهر الكبير.
قرأت كتابًا عن تاريخ العلوم عند العرب.
الماء ضروري للحياة، ولا يعيش أحد بدونه.
يعمل أبي في المستشفى وتعمل أمي في المكتبة.
سافرنا بالقطار من القاهرة إلى الإسكندرية.
هل تريد فنجانًا من القهوة أم كوبًا من الشاي؟
كان الجو باردًا جدًا في الليلة الماضية.""",
    "fa": "امروز هوا خیلی خوب است و ما به باغ می‌رویم.\nکتاب‌های من روی میز هستند.",
    "he": "הילדים משחקים בגינה ליד הבית.\nהספר החדש נמצא על השולחן.",
    "ja": "昨日の夜、友だちと映画を見に行きました。\nこの町には古いお寺がたくさんあります。",
    "ko": "오늘은 날씨가 맑아서 산책을 했습니다.\n어머니는 부엌에서 저녁을 준비하신다.",
    "ru": "Утром мы пили чай и смотрели на реку.\nПоезд пришёл на станцию с опозданием.",
    "el": "Το βιβλίο είναι πάνω στο τραπέζι.\nΟ ήλιος έδυε πίσω από τα βουνά.",
    "hi": "बच्चे स्कूल से घर लौट रहे हैं।\nनदी के किनारे एक पुराना मंदिर है।",
    "ta": "மழை பெய்ததால் விளையாட்டு நின்றது.\nஅவள் ஒரு கடிதம் எழுதினாள்.",
    "th": "วันนี้ฝนตกหนักมากจึงไม่ได้ออกไปไหน\nแม่ทำอาหารเย็นอยู่ในครัว",
    "am": "ልጆቹ በትምህርት ቤት ይማራሉ።",
    "vi": "Buổi sáng bà tôi thường đi chợ mua rau.\nCon sông này chảy ra biển.",
    "de": "Der Zug fährt über die Brücke, während es schneit.\nSüße Äpfel wachsen im Garten.",
}
LINES = [line for text in TEXTS.values() for line in text.split("\n")]


@pytest.mark.parametrize(("kind", "size"), [("unigram", 900), ("bpe", 900)])
def test_every_script(kind, size, tmp_path, make_config):
    (tmp_path / "text.txt").write_text("\n".join(LINES * 4), encoding="utf-8")
    text = [str(tmp_path / "text.txt")]
    more = {"vocab_size": size, "model_type": kind, "character_coverage": 1.0}
    tokenizer_training.train(text, tmp_path, **more)
    model = tokenizer.load(tmp_path)
    ids = model.encode_batch(LINES)
    assert not any(model.unk_id in line for line in ids)
    for script in ("zh", "ar"):  # are pieces, not bytes
        line = TEXTS[script].split("\n")[0]
        assert len(model.encode(line)) < len(line)
    for family in ("bert", "t5", "gpt2"):
        files = tokenizer_files.files(make_config(family, model), model)
        mixed = [f"{a} {b}\t{a[::-1]}" for a, b in zip(LINES, LINES[7:], strict=False)]
        assert tokenizer_check.check(files, model, LINES + mixed) > len(LINES + mixed)

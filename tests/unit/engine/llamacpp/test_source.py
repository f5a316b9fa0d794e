"""Which file a model's name stands for."""

import huggingface_hub
import pytest

from mooring.core.errors import ModelUnreadable
from mooring.engine.llamacpp.parts import all_parts
from mooring.engine.llamacpp.source import choose_files, find_model

SPLIT = [f"big-q4_k_m-0000{part}-of-00003.gguf" for part in (1, 2, 3)]


def choose(*files, wanted=None):
    return choose_files(list(files), wanted, "owner/repo")


def test_choose_files_takes_the_only_model():
    assert choose("README.md", "model-q2_k.gguf", "config.json") == ["model-q2_k.gguf"]


def test_choose_files_overlooks_the_vision_projector():
    assert choose("mmproj-f16.gguf", "model-q2_k.gguf") == ["model-q2_k.gguf"]


@pytest.mark.parametrize(
    ("best", "others"),
    [
        ("m-Q4_K_M.gguf", ["m-F16.gguf", "m-Q2_K.gguf", "m-Q4_K_S.gguf", "m-Q8_0.gguf"]),
        ("m-Q4_K_S.gguf", ["m-F16.gguf", "m-Q2_K.gguf", "m-Q8_0.gguf"]),
        ("m-Q8_0.gguf", ["m-F16.gguf", "m-Q2_K.gguf"]),
        ("m-F16.gguf", ["m-Q2_K.gguf", "m-Q3_K_L.gguf"]),
        ("m-F16.gguf", ["m-BF16.gguf", "m-Q2_K.gguf"]),
        ("m.f16.gguf", ["m.bf16.gguf", "m.q2_k.gguf"]),
    ],
)
def test_choose_files_prefers_the_best_bargain(best, others):
    assert choose(*others, best) == [best]


def test_choose_files_takes_all_parts_of_a_split_model_in_order():
    assert choose(*reversed(SPLIT)) == SPLIT


def test_choose_files_takes_all_parts_of_a_split_model_by_any_of_them():
    assert choose(*SPLIT, wanted=SPLIT[1]) == SPLIT


def test_choose_files_does_not_mix_the_parts_of_two_models():
    other = [f"big-q8_0-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    assert choose(*other, *SPLIT) == SPLIT


def test_choose_files_does_not_mix_two_ways_of_splitting_a_model():
    other = [f"big-q4_k_m-0000{part}-of-00002.gguf" for part in (1, 2)]
    assert choose(*other, *SPLIT, wanted=SPLIT[0]) == SPLIT


def test_choose_files_prefers_among_split_and_single_models():
    assert choose("small-q8_0.gguf", *SPLIT) == SPLIT


def test_choose_files_takes_the_file_that_is_named():
    assert choose("m-q4_k_m.gguf", "m-q2_k.gguf", wanted="m-q2_k.gguf") == ["m-q2_k.gguf"]


def test_choose_files_refuses_an_unknown_file_and_lists_what_there_is():
    with pytest.raises(ModelUnreadable, match=r"owner/repo has no x\.gguf.*m-q2_k\.gguf"):
        choose("m-q2_k.gguf", wanted="x.gguf")


def test_choose_files_refuses_to_guess_and_lists_what_there_is():
    with pytest.raises(ModelUnreadable, match=r"say which file.*m-q2_k\.gguf, m-q3_k\.gguf"):
        choose("m-q3_k.gguf", "m-q2_k.gguf")


def test_choose_files_does_not_take_bf16_for_f16():
    with pytest.raises(ModelUnreadable, match="say which file"):
        choose("m-BF16.gguf", "m-Q2_K.gguf")


def test_choose_files_refuses_a_repository_without_models():
    with pytest.raises(ModelUnreadable, match="none"):
        choose("README.md", "model.safetensors")


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def part_names(folder, name):
    parts = all_parts(folder / name)
    assert {part.parent for part in parts} == {folder}
    return [part.name for part in parts]


def test_all_parts_of_a_single_file_are_that_file(tmp_path):
    touch(tmp_path, "one.gguf", "other.gguf", *SPLIT)
    assert part_names(tmp_path, "one.gguf") == ["one.gguf"]


@pytest.mark.parametrize("part", SPLIT)
def test_all_parts_are_found_by_any_of_them_in_order(tmp_path, part):
    touch(tmp_path, *reversed(SPLIT), "one.gguf")
    assert part_names(tmp_path, part) == SPLIT


def test_all_parts_do_not_mix_two_models(tmp_path):
    touch(tmp_path, *SPLIT)
    touch(tmp_path, *(name.replace("q4_k_m", "q8_0") for name in SPLIT))
    touch(tmp_path, *(name.replace("of-00003", "of-00004") for name in SPLIT))
    assert part_names(tmp_path, SPLIT[0]) == SPLIT


def test_all_parts_are_those_that_are_there(tmp_path):
    """What is missing, loading the model will say."""
    touch(tmp_path, SPLIT[0], SPLIT[2])
    assert part_names(tmp_path, SPLIT[0]) == [SPLIT[0], SPLIT[2]]


def test_all_parts_hold_a_file_of_any_name(tmp_path):
    (tmp_path / "weights.bin").touch()
    assert part_names(tmp_path, "weights.bin") == ["weights.bin"]


def test_find_model_takes_a_path_as_it_is(tmp_path):
    path = tmp_path / "model.gguf"
    path.touch()
    assert find_model(str(path)) == path


def test_find_model_expands_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.gguf").touch()
    assert find_model("~/model.gguf") == tmp_path / "model.gguf"


def test_find_model_refuses_a_missing_path(tmp_path):
    with pytest.raises(ModelUnreadable, match="no model file at"):
        find_model(str(tmp_path / "missing.gguf"))


def test_find_model_refuses_a_folder(tmp_path):
    with pytest.raises(ModelUnreadable, match="no model file at"):
        find_model(str(tmp_path))


def test_find_model_refuses_a_malformed_repository():
    with pytest.raises(ModelUnreadable, match="is not hf:owner/repo"):
        find_model("hf:not a/repo/name")


def test_find_model_says_that_it_is_offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnreadable, match=r"cannot download hf:owner/repo: .*offline"):
        find_model("hf:owner/repo")

"""What several test files share: a model of a few thousand weights, and answers made up for it."""

import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: equal numbers on every machine, and forks stay safe

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the tests run from a bare checkout too
torch.set_num_threads(1)


@pytest.fixture
def small_model():
    return make_small_model()


def make_small_model(seed=0, vocabulary=23):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=False, max_position_embeddings=128, initializer_range=0.3,
        bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval()


def make_rollouts(P, G, seed=0, vocabulary=23, longest=20):
    """P*G random answers to P random prompts, of very different lengths."""
    from minidrpo.records import Rollout

    g = torch.Generator().manual_seed(seed)

    def ids(n):
        return torch.randint(2, vocabulary, (n,), generator=g).tolist()

    rollouts = []
    for _ in range(P):
        prompt = ids(int(torch.randint(1, 7, (1,), generator=g)))
        for _ in range(G):
            answer = ids(int(torch.randint(1, longest + 1, (1,), generator=g)))
            rollouts.append(Rollout(prompt, answer, True, [0.0] * len(answer)))
    return rollouts


@pytest.fixture(scope="session")
def browser():
    """A Chromium without a window, driven by selenium; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install '.[browser]'")
    from selenium.common.exceptions import WebDriverException

    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("no chromium and chromedriver on this machine")
    options.binary_location = binary
    try:
        window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    except WebDriverException as error:
        pytest.skip(f"Chromium does not start: {error.msg}")
    yield window
    window.quit()

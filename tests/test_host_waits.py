"""A batch makes no host wait for a GPU. Shown without one, by tensors that have a shape and a device but no content.

A read of their content (`item`, `tolist`, a comparison in an `if`) raises an error, and a copy to the GPU is an
operation on a tensor of the CPU. `pytest -m gpu` has the same for the backward pass, which needs a card.
"""

import pytest
import torch
import torch.nn.functional as F
from conftest import CLASSNAMES, TINY_RESNET, TINY_VIT, make_clip
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tlla.clip import _per_channel
from tlla.methods import METHODS
from tlla.metrics import score
from tlla.prompts.chunks import place_chunks
from tlla.prompts.classifier import PromptClassifier
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.views.encode import ViewEncoder

CUDA = torch.device("cuda")


class FromCPU(TorchDispatchMode):
    """Lists the operations with a tensor of the CPU, numbers apart."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        self.found += [func for tensor in tensors if tensor.device.type == "cpu" and tensor.dim()]
        return func(*args, **(kwargs or {}))


@pytest.fixture
def gpu():
    """A pretended GPU."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode
    for cached in (place_chunks, _per_channel):  # of tensors without content
        cached.cache_clear()


def move(module, mode):
    """Moves a model, and the prompt learner's view of it, to the pretended GPU."""
    for part in module.modules():
        for named, wrap in ((part._parameters, torch.nn.Parameter), (part._buffers, lambda tensor: tensor)):
            for name, tensor in named.items():
                if tensor is not None:
                    named[name] = wrap(mode.from_tensor(tensor.data).to(CUDA))
    return module.requires_grad_(False)


def prompted(mode, arch=TINY_VIT, text_chunk=0, **settings):
    """A prompted CLIP on the pretended GPU."""
    with torch.utils._python_dispatch._disable_current_modes():
        model = make_clip(arch)
        built = PromptedCLIP(model, PromptLearner(model, CLASSNAMES, n_ctx=4, **settings), text_chunk)
    return move(built, mode)


def copies(function):
    """Operations on tensors of the CPU in the second call of a function."""
    function()
    with FromCPU() as seen:
        function()
    return seen.found


def test_a_read_and_a_copy_are_noticed(gpu):
    with FromCPU() as seen:
        values = torch.tensor([1.0, 2.0]).to(CUDA)
    assert seen.found
    with pytest.raises(Exception, match="_local_scalar_dense"):
        bool(values.sum() > 0)


@pytest.mark.parametrize("settings", ({}, {"class_token_position": "middle"}, {"csc": True}), ids=str)
@pytest.mark.parametrize("text_chunk", (0, 2))
def test_encoding_prompts_waits_for_nothing(gpu, settings, text_chunk):
    model = prompted(gpu, text_chunk=text_chunk, **settings)
    contexts = torch.stack([model.prompt_learner.ctx] * 3)
    assert copies(model.encode_text) == []
    assert copies(lambda: model.encode_text(contexts)) == []


@pytest.mark.parametrize("arch", (TINY_VIT, TINY_RESNET), ids=("ViT", "ResNet"))
def test_encoding_views_waits_for_nothing(gpu, arch):
    encode = ViewEncoder(prompted(gpu, arch).clip)
    views = torch.zeros(2, 3, 32, 32, 3, dtype=torch.uint8, device=CUDA).movedim(-1, 2)
    assert copies(lambda: encode(views)) == []


# Not those that learn from the images, as what they remember depends on each image's content.
@pytest.mark.parametrize("name", sorted(name for name, m in METHODS.items() if not m.needs_backprop and not m.online))
def test_methods_wait_for_nothing(gpu, name):
    method = METHODS[name]()
    method.start(PromptClassifier(prompted(gpu)))
    features = F.normalize(torch.ones(2, 64, 32, device=CUDA), dim=-1)
    label = torch.zeros(2, dtype=torch.int64, device=CUDA)
    assert copies(lambda: score(method.predict(features), label)) == []

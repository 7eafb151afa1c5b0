"A tokenizer of single signs, and random models of the families that engines know."
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["<unk>", "<pad>", "<system>", "<user>", "<assistant>", "<end>", *"0123456789abcdefghijklmnopqrstuvwxyz"]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }} <end>"
    "{% endgeneration %}{% else %}{{ m['content'] }} <end>{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SIZES = {
    "vocab_size": len(WORDS), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "eos_token_id": 5, "bos_token_id": None, "pad_token_id": None,
}  # fmt: skip
WINDOWS = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
ARCHITECTURES = {
    "llama": ("Llama", {}),
    "qwen3": ("Qwen3", {}),
    "qwen3_sliding": ("Qwen3", {"use_sliding_window": True, **WINDOWS}),
    "mistral_sliding": ("Mistral", {"sliding_window": 8}),
    "gemma3": ("Gemma3", WINDOWS),
}


def make_tokenizer(template=TEMPLATE):
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", eos_token="<end>",
        additional_special_tokens=["<system>", "<user>", "<assistant>"], chat_template=template,
    )  # fmt: skip


def make_model(architecture="llama", dtype=torch.float32):
    name, settings = ARCHITECTURES[architecture]
    config = getattr(transformers, "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config")
    torch.manual_seed(1)
    return getattr(transformers, f"{name}ForCausalLM")(config(**SIZES, **settings)).to(dtype).eval()

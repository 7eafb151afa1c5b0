"A random model of two layers and a tokenizer of forty words, for tests of training."
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 40
TEMPLATE = (
    "{% for m in messages %}{{ {'system': 'w3', 'user': 'w4', 'assistant': 'w5'}[m['role']] }} {{ m['content'] }} w1 w6 {% endfor %}"
    "{% if add_generation_prompt %}w5 {% endif %}"
)


def make_base(folder):
    "Write the model and its tokenizer."
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w2"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="w0", eos_token="w1", unk_token="w2", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1,
        bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def all_weights(model):
    "All trained weights in one vector."
    return torch.cat([weight.detach().flatten() for weight in model.parameters() if weight.requires_grad])


def all_gradients(model):
    "Their gradients, kept."
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.requires_grad]).clone()


def warm(model):
    "Give B small weights, so that every part of the adapter has a gradient at the first step."
    torch.manual_seed(5)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.02)
    return model

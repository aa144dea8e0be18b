"""Makes the tiny checkpoints beside this file, and what `transformers` computes with them.

    python make.py        # torch, transformers 5.23, safetensors, gguf 0.19

Every family gets a directory: config.json, safetensors (f32, random, seeded), model.gguf with the same numbers, and golden.json
with token ids, the rows that were recorded and their logits (hidden states for encoders). Decoders are computed with keys and
values rounded to f16 before attention, since our cache keeps f16 and the rest is to be compared sharply. `llama-mixed` holds a
GGUF of F32, F16 and Q8_0 tensors; its golden is computed from the numbers those types give back.
"""

import json
import math
import shutil
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from transformers.models.llama.modeling_llama import eager_attention_forward

HERE = Path(__file__).parent
VOCAB = 61
LENGTH = 80  # more than a page of the cache
ROWS = [0, 1, 7, 31, 63, 64, 70, 79]


def cached_attention(module, query, key, value, *more, **named):
    """Attention over what a cache of f16 gives back."""
    return eager_attention_forward(module, query, key.half().float(), value.half().float(), *more, **named)


transformers.AttentionInterface.register("cached", cached_attention)
transformers.AttentionMaskInterface.register("cached", transformers.masking_utils.eager_mask)


def randomise(model, seed):
    """Numbers large enough that every part matters."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = "norm" in name.lower() and name.endswith("weight")
        offset = 1.0 if is_norm and "gemma" not in type(model).__name__.lower() else 0.0
        scale = 1.0 if "embed" in name else 0.3 if parameter.dim() < 2 else 1.5 / math.sqrt(parameter.shape[-1])
        parameter.data = (offset + scale * noise).to(torch.float32)
    return model.eval()


def golden(model, out, rows=ROWS, length=LENGTH):
    tokens = torch.randint(0, VOCAB, (1, length), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        result = model(tokens)
    values = result.logits if hasattr(result, "logits") else result.last_hidden_state
    values = [[float(f"{x:.7g}") for x in values[0, row].tolist()] for row in rows]
    write_json(out / "golden.json", {"tokens": tokens[0].tolist(), "rows": rows, "values": values})


def write_json(path, value):
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def save(name, model, shards=None):
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    if shards:
        model.save_pretrained(out, max_shard_size=shards)
    else:
        model.save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    for file in out.iterdir():
        file.chmod(0o644)
    return out


def llama_config(**more):
    return transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, **more)


def rope(kind, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


def causal(config, seed):
    return randomise(transformers.AutoModelForCausalLM.from_config(config, attn_implementation="cached"), seed)


LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}

CAUSAL = {
    "llama": llama_config(),
    "llama3": llama_config(tie_word_embeddings=True, attention_bias=True, mlp_bias=True, **rope("llama3", **LLAMA3)),
    "llama-linear": llama_config(**rope("linear", factor=2.0)),
    "llama-yarn": llama_config(**rope("yarn", factor=4.0, original_max_position_embeddings=64)),
    "qwen2": transformers.Qwen2Config(
        vocab_size=VOCAB, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, max_position_embeddings=128),
    "gemma3": transformers.Gemma3TextConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=7, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=8, sliding_window=6, max_position_embeddings=128),
}

LLAMA_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
NAMES = {
    "llama": LLAMA_NAMES,
    "qwen2": LLAMA_NAMES,
    "gemma3": LLAMA_NAMES | {
        "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm", "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm"},
    "bert": {
        "embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd",
        "embeddings.token_type_embeddings": "token_types", "embeddings.LayerNorm": "token_embd_norm",
        "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
        "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
        "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm"},
}


def gguf_name(family, name):
    stem, suffix = name.rsplit(".", 1)
    for prefix in ("model.layers.", "encoder.layer."):
        if stem.startswith(prefix):
            number, stem = stem[len(prefix):].split(".", 1)
            return f"blk.{number}.{NAMES[family][stem]}.{suffix}"
    return f"{NAMES[family][stem]}.{suffix}"


def permute(rows, heads):
    """Pairs side by side, as GGUF stores Llama's queries and keys."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def llama3_divisors(config):
    """As Llama 3.1's reference code stretches frequencies; GGUF stores the divisors."""
    p, dim = config.rope_parameters, config.head_dim
    divisors = []
    for i in range(0, dim, 2):
        wavelength = 2 * math.pi * p["rope_theta"] ** (i / dim)
        trained, low, high = p["original_max_position_embeddings"], p["low_freq_factor"], p["high_freq_factor"]
        if wavelength < trained / high:
            divisors.append(1.0)
        elif wavelength > trained / low:
            divisors.append(p["factor"])
        else:
            smooth = (trained / wavelength - low) / (high - low)
            divisors.append(1.0 / ((1.0 - smooth) / p["factor"] + smooth))
    return np.array(divisors, dtype=np.float32)


def write_gguf(path, family, model, quantise=lambda name: gguf.GGMLQuantizationType.F32):
    config = model.config
    writer = gguf.GGUFWriter(path, family)
    writer.add_name(path.parent.name)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    tokens = [f"t{i}" for i in range(VOCAB)]
    writer.add_tokenizer_model("bert" if family == "bert" else "llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(VOCAB)])
    writer.add_token_types([3 if i < 3 else 1 for i in range(VOCAB)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if family == "bert":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
    else:
        add_decoder_fields(writer, config)
    for name, tensor in model.state_dict().items():
        if name.startswith("pooler.") or (name == "lm_head.weight" and config.tie_word_embeddings):
            continue
        values = tensor.numpy()
        if family == "llama" and (".q_proj." in name or ".k_proj." in name):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            values = permute(values, heads)
        if family == "gemma3" and "norm" in name:
            values = values + 1
        kind = quantise(name)
        data = gguf.quants.quantize(np.ascontiguousarray(values), kind)
        writer.add_tensor(gguf_name(family, name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_decoder_fields(writer, config):
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if config.model_type.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    match rope["rope_type"]:
        case "llama3":
            writer.add_tensor("rope_freqs.weight", llama3_divisors(config))
        case "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
        case "yarn":
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(rope["factor"])
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def make_mixed():
    """Types that lose something: the golden is computed from what they keep."""
    F32, F16, Q8_0 = (getattr(gguf.GGMLQuantizationType, k) for k in ("F32", "F16", "Q8_0"))
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True)
    model = causal(config, 11)

    def kind(name):
        return F32 if "norm" in name else F16 if "layers.0" in name else Q8_0

    for name, parameter in model.named_parameters():
        kept = gguf.quants.dequantize(gguf.quants.quantize(parameter.detach().numpy(), kind(name)), kind(name))
        parameter.data = torch.from_numpy(kept.copy()).float()
    out = HERE / "llama-mixed"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    golden(model, out)
    write_gguf(out / "model.gguf", "llama", model, kind)


def main():
    for seed, (name, config) in enumerate(CAUSAL.items()):
        model = causal(config, seed)
        # One of them in several files.
        out = save(name, model, shards="20KB" if name == "qwen2" else None)
        golden(model, out)
        write_gguf(out / "model.gguf", name.split("-")[0].replace("llama3", "llama"), model)
    config = transformers.BertConfig(
        vocab_size=VOCAB, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
        max_position_embeddings=64)
    model = randomise(transformers.BertModel(config), 99)
    out = save("bert", model)
    golden(model, out, rows=[0, 1, 20, 39], length=40)
    write_gguf(out / "model.gguf", "bert", model)
    make_mixed()


if __name__ == "__main__":
    main()

"""What refusals and leaked chat templates look like, as regular expressions of polars (Rust syntax)."""

from __future__ import annotations

#: An AI speaking of itself. After the list on the card of ShareGPT_Vicuna_unfiltered (hub: anon8231489123), less the
#: words of it that are topics rather than refusals.
SELF_REFERENCE = (
    r"(?i)\bas an? (?:ai|artificial intelligence|(?:ai |(?:large |text-based )?(?:ai )?language )model"
    r"|ai (?:assistant|chatbot))(?:,| and)?\s*\bi\b"
    r"|\bi(?:['’]m| am) (?:just |only |merely )?an? (?:(?:large |ai )?language model|ai (?:assistant|chatbot))\b"
    r"|\bi(?:['’]m| am) (?:just|only|merely) an? (?:ai|machine|computer program)\b"
    r"|\bmy (?:knowledge|training) cut-?off\b"
)
#: A refusal at the start of an answer. After the test prefixes of GCG (arXiv 2307.15043), each narrowed to
#: a refusal by its verb: "I cannot" alone also begins honest sentences, and role play.
REFUSAL = (
    r"(?i)^\W*(?:(?:i(?:['’]m| am) (?:very |so |really |truly )?sorry|sorry|i apologi[sz]e|my apologies|unfortunately)"
    r"[,.;!]?\W*(?:but |that |however,? )?)?"
    r"(?:i (?:can(?:no|['’])t|can not|am (?:not able|unable) to|['’]m (?:not able|unable) to|won['’]t|will not|"
    r"must decline to|do not feel comfortable|don['’]t feel comfortable)"
    r"|i(?:['’]m| am) (?:not able|unable) to)\s+(?:be able to )?"
    r"(?:assist|help (?:you|with)|fulfil?l|comply|provide|(?:answer|complete) (?:that|this|your)|respond to|engage|"
    r"participate|support|generate|create|write|discuss|share|access|browse|open|view|see (?:the|any|your)|perform|"
    r"process|recommend|predict|giv(?:e|ing))\b"
)
#: Words of which every match of the two above has one: a cheap first search, because the two are slow.
REFUSAL_WORDS = (
    r"(?i)\b(?:sorry|language model|an ai|artificial intelligence|cut-?off|I (?:can|am|will|won|must|do))|\bI['’]m\b"
)
#: Markers of chat templates: ChatML, Llama 2 and 3, Gemma, DeepSeek, Phi, OpenAssistant, Alpaca, Vicuna.
TEMPLATE = (
    r"<\|(?:im_start|im_end|im_sep|endoftext|eot_id|eom_id|start_header_id|end_header_id|begin_of_text|end_of_text|"
    r"system|user|assistant|end|pad|prompter|endofprompt)\|>"
    r"|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<｜(?:User|Assistant|begin▁of▁sentence|"
    r"end▁of▁sentence)｜>"
    r"|(?m:^### ?(?:Instruction|Response|Human|Assistant):)"
    r"|^\s*<s>|</s>\s*$"
)
HUMAN_TURN = r"(?m)^(?:Human|USER|User): ?\S"
ASSISTANT_TURN = r"(?m)^(?:Assistant|ASSISTANT): ?\S"

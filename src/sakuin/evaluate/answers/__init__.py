"""Whole models, asked: does the answer survive?

`fidelity` compares next-token distributions and attention outputs (`audit`), `needle` asks for planted facts,
`extraction` for records as JSON, `ruler` for RULER's tasks, and `harness_runs` runs lm-eval's tasks with
`harness_model`. Each runs full attention beside the named configurations.
"""

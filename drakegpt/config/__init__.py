"""Settings of models and runs: their fields, presets, resolution, checks and files."""

from drakegpt.config.lookup import (
    changeable_settings,
    choices,
    incidental_settings,
    searchable_settings,
    setting_of,
    type_of,
)
from drakegpt.config.resolve import (
    expand_lr,
    find_model,
    merge_layers,
    parse_model,
    parse_setting_name,
    parse_value,
    preset_model,
    resolve,
)
from drakegpt.config.schema import (
    LADDER,
    LARGEST_FLOAT,
    LARGEST_NUMBER,
    LARGEST_SIZE,
    MODEL_NAMES,
    ORIGINAL_MODELS,
    PANELS,
    SIZES,
    Device,
    ModelConfig,
    ModelName,
    Preset,
    Recipe,
    SelectOn,
    TrainConfig,
    add_model,
)
from drakegpt.config.validate import check_setting, has_odd_heads, uneven_heads

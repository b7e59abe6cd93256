"""Models of the packages from which vision models come, made from their configurations with random weights.

A name is ``package:model``; nothing is downloaded. What initialisation leaves constant is drawn anew, and batch
normalisation gets the statistics of a random image, so that no branch of a network is silent or runs away.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import torch
from sweep_torchvision import redraw

os.environ |= {"HF_HUB_OFFLINE": "1", "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}

SIZE = 128
"""Height and width of images, where a model takes any."""

TIMM = """
bat_resnext26ts beit_base_patch16_224 botnet26t_256 caformer_s18 cait_xxs24_224 coat_lite_tiny coat_tiny
coatnet_nano_rw_224 convformer_s18 convit_tiny convmixer_1024_20_ks9_p14 convnext_atto convnextv2_atto
crossvit_tiny_240 cspdarknet53 cspresnet50 darknet21 davit_tiny deit_tiny_distilled_patch16_224 densenet121 dla34
dla46_c dpn48b eca_nfnet_l0 ecaresnet26t edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientnet_b0
efficientnet_es efficientnet_lite0 efficientvit_b0 efficientvit_m0 ese_vovnet19b_dw eva02_tiny_patch14_224
fasternet_t0 fastvit_t8 fbnetc_100 flexivit_small focalnet_tiny_srf gcresnext26ts gcvit_xxtiny gernet_s ghostnet_050
ghostnetv2_100 gmixer_24_224 gmlp_s16_224 halonet26t hardcorenas_a hgnet_tiny hgnetv2_b0 hiera_tiny_224
hrnet_w18_small inception_next_atto inception_v3 inception_v4 lambda_resnet26t lcnet_050 legacy_seresnet18
legacy_xception levit_128s levit_conv_128s mambaout_femto maxvit_rmlp_pico_rw_256 mixer_s32_224 mixnet_s mnasnet_small
mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_conv_small mobileone_s0 mobilevit_xxs mobilevitv2_050 mvitv2_tiny
nest_tiny nextvit_small nf_regnet_b0 pit_ti_224 poolformer_s12 pvt_v2_b0 rdnet_tiny regnetx_002 regnety_002
repghostnet_050 repvgg_a0 repvit_m0_9 res2net50_26w_4s resmlp_12_224 resnest14d resnet10t resnet26t resnetv2_18
rexnet_100 selecsls42 semnasnet_075 sequencer2d_s seresnext26t_32x4d shvit_s1 skresnet18 spnasnet_100 starnet_s1
swiftformer_xs swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 swinv2_tiny_window8_256 tf_efficientnet_lite0
tf_efficientnetv2_b0 tf_mobilenetv3_small_075 tinynet_e tiny_vit_5m_224 tnt_s_patch16_224 tresnet_m twins_pcpvt_small
twins_svt_small vgg11_bn visformer_tiny vit_relpos_small_patch16_224 vit_tiny_patch16_224 vit_tiny_r_s16_p8_224
volo_d1_224 xception41 xcit_nano_12_p16_224
""".split()  # noqa: SIM905

ULTRALYTICS = """
yolov3-tiny yolov5n yolov6n yolov8n yolov8n-cls yolov8n-obb yolov8n-pose yolov8n-seg yolov8n-p2 yolov8n-ghost yolov9t
yolov9c-seg yolov10n yolo11n yolo11n-cls yolo11n-obb yolo11n-pose yolo11n-seg yolo12n yolo12n-cls yolo12n-obb
yolo12n-pose yolo12n-seg yolo26n yolo26n-cls yolo26n-obb yolo26n-pose yolo26n-seg yolo26n-sem yolo26n-depth rtdetr-l
""".split()  # noqa: SIM905

DECODERS = (
    *("DPT", "DeepLabV3", "DeepLabV3Plus", "FPN", "Linknet", "MAnet", "PAN", "PSPNet", "Segformer", "UPerNet", "Unet"),
    "UnetPlusPlus",
)

_SWIN = {"image_size": 64, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
_VIT = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 64,
    "patch_size": 16,
}
_DETR = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_queries": 20,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
}

# a model's name is that of its configuration's class, the class of the model, and what makes it small
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Beit": ("BeitForImageClassification", _VIT),
    "Bit": (
        "BitForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 1, 1], "num_groups": 8},
    ),
    "CLIPVision": ("CLIPVisionModel", _VIT),
    "ConvNext": ("ConvNextForImageClassification", {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}),
    "ConvNextV2": ("ConvNextV2ForImageClassification", {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}),
    "Cvt": ("CvtForImageClassification", {"embed_dim": [16, 32, 64], "num_heads": [1, 2, 4], "depth": [1, 2, 3]}),
    "DPT": (
        "DPTForDepthEstimation",
        _VIT
        | {
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 16, 24, 32],
            "fusion_hidden_size": 16,
            "num_hidden_layers": 4,
        },
    ),
    "Data2VecVision": ("Data2VecVisionForImageClassification", _VIT),
    "DeiT": ("DeiTForImageClassificationWithTeacher", _VIT),
    "Detr": ("DetrForObjectDetection", _DETR),
    "Dinov2": ("Dinov2ForImageClassification", _VIT | {"patch_size": 14, "image_size": 70, "mlp_ratio": 2}),
    "Dinov2WithRegisters": ("Dinov2WithRegistersForImageClassification", _VIT | {"mlp_ratio": 2}),
    "DINOv3ViT": ("DINOv3ViTModel", _VIT),
    "EfficientNet": (
        "EfficientNetForImageClassification",
        {"width_coefficient": 0.35, "depth_coefficient": 0.35, "hidden_dim": 448},
    ),
    "FocalNet": ("FocalNetForImageClassification", {"image_size": 64, "embed_dim": 24, "depths": [1, 1, 2, 1]}),
    "GLPN": (
        "GLPNForDepthEstimation",
        {"hidden_sizes": [8, 16, 40, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16},
    ),
    "HGNetV2": ("HGNetV2ForImageClassification", {}),
    "Hiera": ("HieraForImageClassification", {"embed_dim": 24, "image_size": [128, 128], "depths": [1, 1, 2, 1]}),
    "IJepa": ("IJepaForImageClassification", _VIT),
    "Levit": (
        "LevitForImageClassification",
        {
            "image_size": 128,
            "hidden_sizes": [32, 64, 96],
            "num_attention_heads": [2, 4, 6],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
    ),
    "MobileNetV1": ("MobileNetV1ForImageClassification", {"depth_multiplier": 0.25}),
    "MobileNetV2": ("MobileNetV2ForImageClassification", {"depth_multiplier": 0.35}),
    "MobileViT": ("MobileViTForImageClassification", {"image_size": 128}),
    "MobileViTV2": ("MobileViTV2ForImageClassification", {"image_size": 128, "width_multiplier": 0.5}),
    "PoolFormer": ("PoolFormerForImageClassification", {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}),
    "Pvt": ("PvtForImageClassification", {"image_size": 64, "hidden_sizes": [16, 32, 40, 64], "depths": [1, 1, 1, 1]}),
    "PvtV2": ("PvtV2ForImageClassification", {"hidden_sizes": [16, 32, 40, 64], "depths": [1, 1, 1, 1]}),
    "RegNet": (
        "RegNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "groups_width": 8},
    ),
    "ResNet": (
        "ResNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]},
    ),
    "Segformer": (
        "SegformerForSemanticSegmentation",
        {"hidden_sizes": [8, 16, 40, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32},
    ),
    "SiglipVision": ("SiglipVisionModel", _VIT),
    "Swin": ("SwinForImageClassification", _SWIN),
    "Swin2SR": (
        "Swin2SRForImageSuperResolution",
        {"image_size": 32, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4, "upscale": 2},
    ),
    "Swinv2": ("Swinv2ForImageClassification", _SWIN),
    "TextNet": ("TextNetForImageClassification", {}),
    "ViT": ("ViTForImageClassification", _VIT),
    "ViTMSN": ("ViTMSNForImageClassification", _VIT),
    "VitDet": (
        "VitDetModel",
        {k: v for k, v in _VIT.items() if k != "intermediate_size"} | {"window_block_indices": [0], "window_size": 2},
    ),
    "Yolos": ("YolosForObjectDetection", _VIT | {"image_size": [64, 96], "num_detection_tokens": 10}),
    "MaskFormer": (
        "MaskFormerForInstanceSegmentation",
        {
            "backbone_config": (
                "Swin",
                _SWIN
                | {
                    "depths": [1, 1, 1, 1],
                    "num_heads": [1, 2, 2, 4],
                    "out_features": ["stage1", "stage2", "stage3", "stage4"],
                },
            ),
            "fpn_feature_size": 32,
            "mask_feature_size": 32,
        },
    ),
    "UperNet": (
        "UperNetForSemanticSegmentation",
        {
            "backbone_config": (
                "ConvNext",
                {
                    "hidden_sizes": [16, 24, 32, 48],
                    "depths": [1, 1, 1, 1],
                    "out_features": ["stage1", "stage2", "stage3", "stage4"],
                },
            ),
            "hidden_size": 32,
            "use_auxiliary_head": False,
        },
    ),
}


def names() -> list[str]:
    """Every model of the sweep; behind an ``@onnx`` the same model by way of a file that PyTorch's exporter writes."""
    found = [f"ultralytics:{name}" for name in ULTRALYTICS]
    found += [f"smp:{name}" for name in DECODERS]
    found += [f"transformers:{name}" for name in TRANSFORMERS]
    found += [f"timm:{name}" for name in TIMM]
    twice = ("smp:", "transformers:")
    return (
        found
        + [f"{name}@onnx" for name in found if name.startswith(twice)]
        + [f"timm:{name}@onnx" for name in TIMM[::4]]
    )


def make(name: str) -> tuple[torch.nn.Module, tuple[int, ...]]:
    """A model in evaluation mode and the shape of its image."""
    package, _, model = name.partition(":")
    torch.manual_seed(0)
    module, size = {"timm": _timm, "ultralytics": _ultralytics, "smp": _smp, "transformers": _transformers}[package](
        model
    )
    shape = (1, 3, *size)
    return settle(redraw(module.eval()), shape), shape


def network(name: str, images: int = 1, size: int = SIZE) -> torch.nn.Module:
    """A model in evaluation mode that has seen such images once, since heads keep the grids of the last size, and whose
    heads give what they give in an exported file."""
    module = make(name)[0]
    for part in module.modules():
        if hasattr(part, "export"):  # of ultralytics
            part.export = True
    with torch.no_grad():
        module(torch.zeros(images, 3, size, size))
    return module


def settle(module: torch.nn.Module, shape: tuple[int, ...]) -> torch.nn.Module:
    """Give batch normalisation the statistics of random images, where the model can be run for that."""
    layers = [part for part in module.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    kept = [(layer.running_mean.clone(), layer.running_var.clone(), layer.momentum) for layer in layers]
    for layer in layers:
        layer.train()
        layer.momentum = 1.0
    try:
        with torch.no_grad():
            module(torch.randn(2, *shape[1:]))
    except (RuntimeError, ValueError):  # a layer of one value a channel has no statistics
        for layer, (mean, variance, _) in zip(layers, kept, strict=True):
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(variance)
    for layer, (*_, momentum) in zip(layers, kept, strict=True):
        layer.eval()
        layer.momentum = momentum
    return module


def write_onnx(name: str, folder: Path) -> Path:
    """Write a model as its users do: with ultralytics' own exporter, else with PyTorch's."""
    file = folder / "model.onnx"
    module, shape = make(name)
    with contextlib.redirect_stdout(io.StringIO()):
        if name.startswith("ultralytics:"):
            return _exported(name.partition(":")[2], module, folder)
        torch.onnx.export(module, (torch.randn(*shape),), str(file), dynamo=True, external_data=False, verbose=False)
    return file


def _timm(name: str) -> tuple[torch.nn.Module, tuple[int, int]]:
    import timm

    module = timm.create_model(name, pretrained=False, scriptable=False)
    config = module.default_cfg
    is_fixed = config.get("fixed_input_size") or any(mark in name for mark in ("_224", "_240", "_256", "bat_"))
    size = int(config["input_size"][1]) if is_fixed else SIZE
    return module, (size, size)


def _ultralytics(name: str) -> tuple[torch.nn.Module, tuple[int, int]]:
    from ultralytics import RTDETR, YOLO

    made = (RTDETR if name.startswith("rtdetr") else YOLO)(f"{name}.yaml")
    return made.model.float(), (SIZE, SIZE)


def _exported(name: str, module: torch.nn.Module, folder: Path) -> Path:
    from ultralytics import RTDETR, YOLO

    made = (RTDETR if name.startswith("rtdetr") else YOLO)(f"{name}.yaml")
    made.model.load_state_dict(module.state_dict())
    made.model.yaml_file = str(folder / name)
    made.model.pt_path = str(folder / f"{name}.pt")
    return Path(made.export(format="onnx", imgsz=SIZE, simplify=False, device="cpu", verbose=False))


def _smp(name: str) -> tuple[torch.nn.Module, tuple[int, int]]:
    import segmentation_models_pytorch as smp

    name, _, encoder = name.partition("/")
    options: dict[str, Any] = {"encoder_name": encoder or "resnet18"}
    if name == "DPT":
        options = {"encoder_name": "tu-vit_tiny_patch16_224", "dynamic_img_size": True}
    return getattr(smp, name)(encoder_weights=None, classes=5, **options), (SIZE, SIZE)


def _transformers(name: str) -> tuple[torch.nn.Module, tuple[int, int]]:
    import transformers

    kind, options = TRANSFORMERS[name]
    config = _config(name, options)
    size = options.get("image_size", SIZE)
    module = getattr(transformers, kind)(config)
    return module, (size, size) if isinstance(size, int) else tuple(size)  # type: ignore[return-value]


def _config(name: str, options: dict[str, Any]) -> Any:
    import transformers

    given = {key: _config(*value) if isinstance(value, tuple) else value for key, value in options.items()}
    config = getattr(transformers, f"{name}Config")(**given)
    config.return_dict = True
    return config

"""Default values, data only. A key that is not listed here or added by a trainer is refused on merging."""

_TRAIN_LOADER = {
    "SAMPLER": "RandomSampler",  # or SequentialSampler
    "BATCH_SIZE": 32,  # images a step
    "N_DOMAIN": 0,  # of upstream's RandomDomainSampler, which is not here
    "N_INS": 16,  # of upstream's RandomClassSampler, which is not here
}

DEFAULTS = {
    "VERSION": 1,  # of the layout of these keys; never read
    "OUTPUT_DIR": "./output",  # log.txt, tensorboard/, <model name>/ with the checkpoints
    "RESUME": "",  # directory of an earlier run; empty: OUTPUT_DIR itself
    "SEED": -1,  # 0 or more: fixed; negative: a random run seed is drawn, printed and kept in the checkpoints
    "USE_CUDA": True,  # False: on the CPU even if there is a GPU
    "VERBOSE": True,  # False: less is printed while data and model are built
    "INPUT": {
        "SIZE": (224, 224),  # height, width
        "INTERPOLATION": "bilinear",  # bilinear, bicubic or nearest
        "TRANSFORMS": (),  # augmentations by name, such as random_resized_crop, random_flip, normalize; --transforms
        "NO_TRANSFORM": False,  # True: images reach the model without any transform
        "PIXEL_MEAN": [0.485, 0.456, 0.406],  # of normalize, red, green, blue; CLIP's are in the configs
        "PIXEL_STD": [0.229, 0.224, 0.225],  # the same
        "CROP_PADDING": 4,  # random_crop: pixels around the image
        "RRCROP_SCALE": (0.08, 1.0),  # random_resized_crop: range of the crop's area
        "CUTOUT_N": 1,  # of upstream's cutout, which is not here
        "CUTOUT_LEN": 16,  # of upstream's cutout, which is not here
        "GN_MEAN": 0.0,  # of upstream's gaussian_noise, which is not here
        "GN_STD": 0.15,  # of upstream's gaussian_noise, which is not here
        "RANDAUGMENT_N": 2,  # of upstream's randaugment, which is not here
        "RANDAUGMENT_M": 10,  # of upstream's randaugment, which is not here
        "COLORJITTER_B": 0.4,  # colorjitter: brightness
        "COLORJITTER_C": 0.4,  # colorjitter: contrast
        "COLORJITTER_S": 0.4,  # colorjitter: saturation
        "COLORJITTER_H": 0.1,  # colorjitter: hue
        "RGS_P": 0.2,  # randomgrayscale: probability
        "GB_P": 0.5,  # gaussian_blur: probability
        "GB_K": 21,  # kernel size, odd
    },
    "DATASET": {
        "ROOT": "",  # folder of the datasets; --root
        "NAME": "",  # of the dataset, as registered; set by configs/datasets/*.yaml
        "SOURCE_DOMAINS": (),  # domains to train on, of datasets that have domains; none here has; --source-domains
        "TARGET_DOMAINS": (),  # domains to test on, the same; --target-domains
        "NUM_LABELED": -1,  # labelled images in total (semi-supervised learning)
        "NUM_SHOTS": -1,  # training images a class; less than 1: all
        "VAL_PERCENT": 0.1,  # share of the training images that upstream's datasets hold out; no dataset here reads it
        "STL10_FOLD": -1,  # of upstream's STL10; no dataset here reads it
        "CIFAR_C_TYPE": "",  # of upstream's CIFAR-C; no dataset here reads it
        "CIFAR_C_LEVEL": 1,  # of upstream's CIFAR-C; no dataset here reads it
        "ALL_AS_UNLABELED": False,  # of upstream's semi-supervised datasets; no dataset here reads it
    },
    "DATALOADER": {
        "NUM_WORKERS": 4,  # processes that load images; changes no result
        "K_TRANSFORMS": 1,  # augmented copies of a training image
        "RETURN_IMG0": False,  # True: items also hold img0, the image without augmentation
        "TRAIN_X": _TRAIN_LOADER,
        "TRAIN_U": {
            "SAME_AS_X": True,  # True: the loader of unlabelled images has TRAIN_X's settings
            **_TRAIN_LOADER,
        },
        "TEST": {
            "SAMPLER": "SequentialSampler",  # as for TRAIN_X
            "BATCH_SIZE": 32,  # images at once
        },
    },
    "MODEL": {
        "INIT_WEIGHTS": "",  # file of weights to start from; for prompts: a checkpoint of context vectors
        "BACKBONE": {
            "NAME": "",  # a CLIP by name, or the file of its weights; --backbone
            "PRETRAINED": True,  # of upstream's networks, which are not here
        },
        "HEAD": {
            "NAME": "",  # of upstream's networks, which are not here; --head
            "HIDDEN_LAYERS": (),  # the same
            "ACTIVATION": "relu",  # the same
            "BN": True,  # the same
            "DROPOUT": 0.0,  # the same
        },
    },
    "OPTIM": {
        "NAME": "adam",  # adam, amsgrad, sgd, rmsprop, radam, adamw
        "LR": 0.0003,  # learning rate
        "WEIGHT_DECAY": 5e-4,  # weight of the L2 penalty (radam, adamw: decoupled)
        "MOMENTUM": 0.9,  # of sgd and rmsprop
        "SGD_DAMPNING": 0,  # of sgd's momentum
        "SGD_NESTEROV": False,  # sgd with Nesterov's momentum
        "RMSPROP_ALPHA": 0.99,  # smoothing of rmsprop
        "ADAM_BETA1": 0.9,  # decay of Adam's first moment; the same for amsgrad, radam, adamw
        "ADAM_BETA2": 0.999,  # decay of the second moment
        "STAGED_LR": False,  # of upstream's fine-tuning of networks; True is refused
        "NEW_LAYERS": (),  # of STAGED_LR
        "BASE_LR_MULT": 0.1,  # of STAGED_LR
        "LR_SCHEDULER": "single_step",  # single_step, multi_step or cosine; one step an epoch
        "STEPSIZE": (-1,),  # single_step: the last value; 0 or less means MAX_EPOCH
        "GAMMA": 0.1,  # factor on the learning rate at each step of single_step and multi_step
        "MAX_EPOCH": 10,  # epochs of training, with the warm-up
        "WARMUP_EPOCH": -1,  # 0 or less: no warm-up
        "WARMUP_TYPE": "linear",  # linear or constant
        "WARMUP_CONS_LR": 1e-5,  # learning rate of a constant warm-up
        "WARMUP_MIN_LR": 1e-5,  # learning rate of a linear warm-up's first epoch
        "WARMUP_RECOUNT": True,  # True: the main schedule starts at its epoch 0 after the warm-up
    },
    "TRAIN": {
        "CHECKPOINT_FREQ": 0,  # keep every n-th epoch's checkpoint; 0 or less: only the last one stays
        "PRINT_FREQ": 10,  # steps between two lines of the log
        "COUNT_ITER": "train_x",  # of upstream's TrainerXU, which is not here
    },
    "TEST": {
        "EVALUATOR": "Classification",  # how predictions are evaluated; Classification is the only one here
        "PER_CLASS_RESULT": False,  # True: also each class's accuracy
        "COMPUTE_CMAT": False,  # True: also writes the confusion matrix, cmat.pt
        "NO_TEST": False,  # True: no test after the training
        "SPLIT": "test",  # test or val
        "FINAL_MODEL": "last_step",  # last_step or best_val
    },
}

# Nodes of the trainers that upstream's distribution holds: YAML files that name them still merge.
TRAINER_DEFAULTS = {
    "MCD": {"N_STEP_F": 4},
    "MME": {"LMDA": 0.1},
    "CDAC": {
        "CLASS_LR_MULTI": 10,
        "RAMPUP_COEF": 30,
        "RAMPUP_ITRS": 1000,
        "TOPK_MATCH": 5,
        "P_THRESH": 0.95,
        "STRONG_TRANSFORMS": (),
    },
    "SE": {"EMA_ALPHA": 0.999, "CONF_THRE": 0.95, "RAMPUP": 300},
    "M3SDA": {"LMDA": 0.5, "N_STEP_F": 4},
    "DAEL": {"WEIGHT_U": 0.5, "CONF_THRE": 0.95, "STRONG_TRANSFORMS": ()},
    "CROSSGRAD": {"EPS_F": 1.0, "EPS_D": 1.0, "ALPHA_F": 0.5, "ALPHA_D": 0.5},
    "DDAIG": {
        "G_ARCH": "",
        "LMDA": 0.3,
        "CLAMP": False,
        "CLAMP_MIN": -1.0,
        "CLAMP_MAX": 1.0,
        "WARMUP": 0,
        "ALPHA": 0.5,
    },
    "DAELDG": {"WEIGHT_U": 0.5, "CONF_THRE": 0.95, "STRONG_TRANSFORMS": ()},
    "DOMAINMIX": {"TYPE": "crossdomain", "ALPHA": 1.0, "BETA": 1.0},
    "ENTMIN": {"LMDA": 1e-3},
    "MEANTEACHER": {"WEIGHT_U": 1.0, "EMA_ALPHA": 0.999, "RAMPUP": 5},
    "MIXMATCH": {"WEIGHT_U": 100.0, "TEMP": 2.0, "MIXUP_BETA": 0.75, "RAMPUP": 20000},
    "FIXMATCH": {"WEIGHT_U": 1.0, "CONF_THRE": 0.95, "STRONG_TRANSFORMS": ()},
}

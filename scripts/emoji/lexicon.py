"""Which category an icon's or an emoji's name belongs to: plain word lists, the text knowledge of EmojiCLIP.

Real CLIP has read of a hedgehog being a mammal; our captions get that from here and from Unicode's subgroups.
"""

from .drawings import Catalog
from .split import CLASSES

# Categories of emoji outside the benchmark's classes, by Unicode subgroup.
OTHER = {
    "reptile": "animal-reptile animal-amphibian",
    "aircraft": "transport-air",
    "boat": "transport-water",
    "musical instrument": "musical-instrument",
    "music symbol": "music sound",
    "flag": "country-flag subdivision-flag flag",
    "clock": "time",
    "arrow": "arrow",
    "shape": "geometric",
    "zodiac sign": "zodiac",
    "celebration": "event award-medal",
    "game": "game arts-crafts",
    "button": "alphanum keycap av-symbol",
    "symbol": "math punctuation currency other-symbol gender religion",
    "person": "person person-role person-activity person-gesture family person-resting person-symbol hotel",
    "fantasy creature": "person-fantasy face-costume",
    "body part": "body-parts",
    "medical item": "medical science",
    "money": "money",
    "mail": "mail",
    "lock": "lock",
    "globe or map": "place-map",
    "cat face": "cat-face",
    "neutral face": "face-neutral-skeptical face-hand face-sleepy",
    "emotion": "emotion",
    "object": "other-object hand-prop",
}

WORDS = {
    "mammal": "dog cat horse cow pig sheep goat lion tiger bear wolf fox deer rabbit mouse rat elephant monkey gorilla "
    "bat squirrel hedgehog kangaroo panda koala camel bull boar badger beaver otter raccoon hippo rhino zebra giraffe",
    "bird": "bird duck owl eagle chicken rooster raven crow penguin swan dove parrot turkey peacock flamingo hawk",
    "sea animal": "fish shark whale dolphin octopus crab shrimp squid seal jellyfish lobster oyster seahorse shell",
    "bug": "bug spider ant bee butterfly beetle mosquito fly snail worm scorpion ladybug wasp cricket caterpillar",
    "reptile": "snake lizard turtle crocodile frog dinosaur dragon tortoise gecko",
    "plant": "tree flower leaf plant cactus rose seedling clover sunflower tulip pine palm mushroom grass sprout lotus "
    "potted bonsai herb leaves trees forest",
    "fruit": "fruit apple banana cherry grapes lemon orange strawberry pear pineapple watermelon peach melon kiwi "
    "mango coconut blueberry grape cherries citrus tomato olive",
    "vegetable": "vegetable carrot broccoli corn eggplant pepper potato onion garlic cucumber lettuce avocado peanut "
    "pumpkin radish cabbage chili bean peas",
    "meal": "pizza burger hamburger sandwich taco soup noodles rice bread egg eggs steak salad sushi bacon cheese meat "
    "food meal croissant hotdog popcorn ramen pasta bento fries sausage baguette pancake waffle bowl",
    "dessert": "cake donut doughnut cookie candy lollipop chocolate icecream cupcake dessert honey pie pudding muffin",
    "drink": "drink coffee tea beer wine cocktail juice milk soda mug glass cup bottle champagne martini whiskey water "
    "liquor beverage sake goblet boba",
    "land vehicle": "car truck bus train bicycle bike motorcycle taxi tram van scooter tractor ambulance vehicle metro "
    "subway railway locomotive moped wagon jeep suv forklift excavator motorbike tank cart trailer",
    "aircraft": "airplane plane helicopter rocket aircraft jet parachute satellite drone balloon",
    "boat": "boat ship sailboat ferry yacht canoe anchor submarine kayak raft",
    "clothing": "shirt tshirt dress hat cap shoe shoes boot boots sock socks jacket coat glove gloves trousers pants "
    "jeans skirt scarf tie glasses sunglasses crown bag handbag backpack purse suit underwear bra bikini sandal "
    "sneaker hoodie helmet vest heel slipper apron belt ring necklace kimono",
    "sports equipment": "basketball football baseball tennis volleyball soccer golf bowling hockey boxing ski skis "
    "skateboard racket dumbbell badminton cricket rugby archery ball medal kayaking surfboard barbell shuttlecock",
    "athlete": "swimming running surfing hiking skiing snowboarding cycling climbing fencing rowing gymnastics yoga "
    "wrestling diving skating judo karate weightlifting swimmer runner cyclist hike run swim",
    "tool": "hammer wrench screwdriver axe saw pickaxe knife sword dagger shovel drill pliers tool tools toolbox gear "
    "shield bow bomb anvil chain ladder clamp nail screw spanner magnet hook crowbar sickle",
    "office supply": "paperclip scissors pen pencil notebook book folder file calendar clipboard pin pushpin ruler "
    "stapler envelope document briefcase chart newspaper brush crayon bookmark paintbrush books note notes marker "
    "paper",
    "household item": "sofa couch bed chair door toilet bathtub shower lamp broom bucket mirror soap toothbrush razor "
    "table window basket candle spoon fork plate knife chopsticks fridge refrigerator oven vacuum sponge armchair "
    "desk wardrobe kettle pan pot blender sink mop cutlery utensils",
    "building": "house home building hospital school bank church castle hotel factory store shop mosque temple tower "
    "office warehouse stadium barn skyscraper lighthouse windmill pagoda museum synagogue courthouse cottage",
    "landscape": "mountain mountains beach island desert volcano sunrise sunset city cityscape bridge fountain park "
    "landscape camping tent ferris carousel hill valley waterfall river",
    "weather": "cloud rain snow sun wind storm lightning moon rainbow snowflake umbrella tornado fog weather thunder "
    "cloudy sunny hail drizzle star comet droplet drop thermometer thunderstorm snowy rainy night sleet haze mist",
    "electronic device": "phone telephone computer laptop camera television tv monitor printer keyboard mouse tablet "
    "battery smartphone desktop webcam projector radio disc floppy plug usb bulb flashlight video device smartwatch "
    "headset gamepad controller mobile screen pager fax lightbulb cassette cellphone",
    "happy face": "smile smiley happy laugh laughing grin grinning smiling wink joy excited kiss",
    "unhappy face": "sad angry cry crying frown unhappy upset worried dizzy sick dead annoyed nervous scared skull",
    "hand gesture": "hand hands finger fist thumb thumbs clap handshake pray pointing wave waving thumbsup thumbsdown",
    "heart": "heart hearts love",
    "sign": "sign warning prohibited forbidden caution radioactive biohazard restroom wc parking roadsign hazard "
    "toilets",
    "musical instrument": "guitar piano violin drum trumpet saxophone flute banjo harp accordion maracas xylophone",
    "music symbol": "music microphone headphones speaker megaphone bell volume note",
    "clock": "clock alarm watch stopwatch timer hourglass",
    "money": "money coin coins dollar euro wallet cash bitcoin banknote yen",
    "mail": "mail mailbox inbox email",
    "lock": "lock key padlock unlock locked",
    "flag": "flag",
    "person": "person user man woman people child baby boy girl doctor nurse worker police farmer account",
    "body part": "eye ear nose mouth tooth tongue foot leg arm brain bone lungs stomach kidney",
    "medical item": "syringe pill pills stethoscope bandage microscope telescope dna thermometer virus flask medicine",
    "game": "dice chess puzzle joystick cards domino palette yarn",
    "celebration": "gift party present trophy firework fireworks",
    "globe or map": "globe map compass earth",
    "arrow": "arrow arrows chevron",
    "fantasy creature": "ghost robot alien monster fairy mermaid vampire zombie witch wizard ogre troll genie elf",
}


class Categories:
    """Looks up the category of an icon's name."""

    def __init__(self, catalog: Catalog) -> None:
        self.of_subgroup = {s: c for c, subgroups in CLASSES.items() for s in subgroups}
        self.of_subgroup |= {s: c for c, subgroups in OTHER.items() for s in subgroups.split()}
        self.of_word = {w: c for c, words in reversed(WORDS.items()) for w in words.split()}
        self.of_label = {e.label: self.of_subgroup.get(e.subgroup) for e in catalog.emoji.values()}

    def of_icon(self, name: str) -> str | None:
        """Whole name, then its words from the last (the head of an English compound) to the first."""
        if self.of_label.get(name):
            return self.of_label[name]
        words = name.split()
        for word in reversed(words):
            category = self.of_word.get(word) or self.of_label.get(word)
            if category:
                return category
        return None

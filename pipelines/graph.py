"""The table of commands. In its order the steps of a run follow each other, and `--help` lists what it says.

To add a command: a module that does the work, a module with its options below `pipelines/options/`, and one entry here.
What is typed, a run file's sections, the help and docs/commands.md come from the table; see docs/adding.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pseudolabel.errors import ConfigError
from pseudolabel.registry import Registry, did_you_mean, installed, load_target

if TYPE_CHECKING:
    from pseudolabel.config import Config
    from pseudolabel.pipelines.stage import Stage

Section = Literal["Start", "Masks", "Train", "Look", "Use", "Advanced"]
Argument = Literal["RUN", "STUDENT", "FILE", ""]

_OPTIONS = "pseudolabel.pipelines.options"
_STAGES = "pseudolabel.pipelines.stages"
_TRAINERS = "pseudolabel.pipelines.trainers"
_TOOLS = "pseudolabel.pipelines.tools"


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a user types after `pseudolabel`. One of its kinds below.

    Args:
        section: where `pseudolabel --help` lists it.
        help: one line.
        about: what else its own `--help` says.
        example: the arguments of a call that somebody would type.
        hidden: not listed.
        next: what to type when it is done; {asked} is its argument, {next} what its answer has there, any other name
            what was said of that option: of {images:DIR} it is DIR where nothing was.
        next_bare: the same in a run without boxes, where that is something else.
        extra: of the package, without which it cannot run; see `pseudolabel.optional`.
    """

    section: Section
    help: str
    about: str = ""
    example: str = ""
    hidden: bool = False
    next: str = ""
    next_bare: str = ""
    extra: str = ""


@dataclass(frozen=True, kw_only=True)
class OwnCommand(Command):
    """A command that is no config and one function: `pseudolabel.cli.NAME:NAME` is it."""


@dataclass(frozen=True, kw_only=True)
class Configured(Command):
    """A command whose options are a config's fields.

    Args:
        config: module:class of the config.
        function: module:attribute of what does the work; see the kinds.
    """

    config: str
    function: str

    def config_class(self, values: Mapping[str, Any]) -> "type[Config]":
        """The class of its options, which may depend on what was said already."""
        config_class: type[Config] = load_target(self.config)
        return config_class


@dataclass(frozen=True, kw_only=True)
class StageCommand(Configured):
    """A `Stage` over the shards of a run; `function` is its class.

    Args:
        then: a stage that the same command runs afterwards where the run has boxes; its options are among this one's.
    """

    then: str = ""


@dataclass(frozen=True, kw_only=True)
class Planner(StageCommand):
    """The stage that begins a run: it freezes the plan first."""


@dataclass(frozen=True, kw_only=True)
class Trainer(Configured):
    """One model of the run, made from tables of the run; `function` takes (run, config) and gives the weights' path.

    Args:
        model: the name below models/.
        version: raise it whenever the same input and config give other weights.
        variants: module:function (values) -> config class, where options depend on one of them; else empty.
    """

    model: str
    version: int
    variants: str = ""

    def config_class(self, values: Mapping[str, Any]) -> "type[Config]":
        """The class of its options: of the variant that the values name."""
        if not self.variants:
            return super().config_class(values)
        config_class: type[Config] = load_target(self.variants)(values)
        return config_class


@dataclass(frozen=True, kw_only=True)
class Tool(Configured):
    """A question about a run or a file; `function` takes (run or path, config) and gives what `--json` prints.

    Args:
        argument: what the command is asked about: a run folder, or the path of a student or another file; may be empty,
            then `function` takes the config alone.
        show: module:function from that to text for people; empty where a line for each part of it will do.
        check: module:function (result, config) that raises where the result is not good enough; else empty.
        second: an option of the config that is typed as a second argument; else empty.
        step: it is a section of a run file, too, at its place in the table.
    """

    argument: Argument = "RUN"
    show: str = ""
    check: str = ""
    second: str = ""
    step: bool = False


COMMANDS: dict[str, Command] = {
    "demo": OwnCommand(
        extra="train",
        section="Start",
        help="Draw scenes, train a small segmenter, run the whole chain: five minutes on two cores.",
        about="Ends with mask IoU beside the boxes' own, a student trained on the pseudo labels beside the same one "
        "trained on true masks, and pictures to look at. Nothing is downloaded; all of it lies in FOLDER.",
        example="demo-run",
        next="pseudolabel report {asked}/run, then  pseudolabel shard RUN --images DIR --annotations FILE  on your own",
    ),
    "shard": Planner(
        section="Start",
        help="Make a run folder of images and boxes: everything begins here.",
        about="Images are assigned to shards, and every image and annotation is opened and checked: what cannot be "
        "used is a row with its reason. RUN is a new folder, or one with the same plan.",
        example="runs/mine --images images/ --annotations boxes.json",
        config=f"{_OPTIONS}.stages.shard:ShardOptions",
        function=f"{_STAGES}.shard:ShardStage",
        next="pseudolabel infer-colors {asked}, which needs no model, or  pseudolabel infer-semantic {asked} "
        "--model FILE.onnx",
        next_bare="pseudolabel infer-semantic {asked} --model FILE.onnx",
    ),
    "models": Tool(
        section="Start",
        help="Models known to work: source, licence, size, what fetches them, what names them.",
        about="Segmenters, promptable models and encoders. Nothing is fetched.",
        example="--kind segmenters",
        argument="",
        config=f"{_OPTIONS}.tools:ModelsConfig",
        function=f"{_TOOLS}.models:models",
        show=f"{_TOOLS}.models:format_models",
        next="what stands behind `use`, after  pseudolabel infer-semantic RUN  for a segmenter,  pseudolabel "
        "infer-prompted RUN  for a promptable model,  pseudolabel train-teacher RUN  for an encoder",
    ),
    "card": Tool(
        section="Start",
        help="A model card for an ONNX segmenter: what its graph says, and marks where you must look.",
        about="FILE is the segmenter. Without --output the card is printed.",
        example="deeplabv3.onnx --output deeplabv3.yaml",
        argument="FILE",
        config=f"{_OPTIONS}.tools:CardConfig",
        function=f"{_TOOLS}.models:card",
        show=f"{_TOOLS}.models:format_card",
        next="{next}",
    ),
    "run": OwnCommand(
        section="Start",
        help="All steps of a run file, one after the other.",
        about="What is done already is not touched. A run file names the run folder and has a section for every "
        "command that shall run, with its options:\n\n"
        "\b\n"
        "run: runs/mine\n"
        "shard: {images: images, annotations: boxes.json}\n"
        "infer-semantic: {model: deeplabv3.onnx}\n"
        "fuse: {}\n"
        "evaluate: {ground_truth: instances.json}",
        example="mine.yaml --set fuse.upright=false",
        next="pseudolabel report {asked}",
    ),
    "status": OwnCommand(
        section="Start",
        help="What is done, running, missing, failed and rejected in a run.",
        about="Read from the files of the run alone, so that it can be asked from any machine.",
        example="runs/mine",
        next="pseudolabel doctor {asked}  says what to do about whatever is missing or failed",
    ),
    "infer-semantic": StageCommand(
        section="Masks",
        help="Candidates by a pretrained segmenter: its label maps, and a mask for every box.",
        example="runs/mine --model deeplabv3.onnx",
        config=f"{_OPTIONS}.stages.infer_semantic:InferSemanticConfig",
        function=f"{_STAGES}.infer_semantic:InferSemanticStage",
        then="semantic-candidates",
        next="pseudolabel fuse {asked}, or for better masks  pseudolabel train-teacher {asked}",
        next_bare="pseudolabel train-siseg {asked}, which finds single objects in the label maps",
    ),
    "semantic-candidates": StageCommand(
        section="Masks",
        help="A mask for every box out of label maps; infer-semantic ends with it.",
        example="runs/mine",
        hidden=True,
        config=f"{_OPTIONS}.stages.infer_semantic:SemanticCandidatesConfig",
        function=f"{_STAGES}.semantic_candidates:SemanticCandidatesStage",
    ),
    "train-siseg": Trainer(
        extra="train",
        section="Advanced",
        help="Learn from label maps where one object ends and the next begins (SISeg).",
        about="What is learned is a displacement field and a boundary that knows no classes, for infer-siseg.",
        example="runs/mine --backbone smp:segmenter",
        config=f"{_OPTIONS}.train_siseg:TrainSisegConfig",
        function=f"{_TRAINERS}.siseg:train_siseg",
        model="siseg",
        version=3,
        next="pseudolabel infer-siseg {asked}",
    ),
    "infer-siseg": StageCommand(
        extra="train",
        section="Advanced",
        help="Candidates out of label maps, also where there are no boxes (SISeg).",
        about="Label maps become single objects by the displacement field and the boundary of train-siseg.",
        example="runs/mine --pictures 3",
        config=f"{_OPTIONS}.stages.infer_siseg:InferSisegConfig",
        function=f"{_STAGES}.infer_siseg:InferSisegStage",
        next="pseudolabel fuse {asked}",
    ),
    "infer-colors": StageCommand(
        section="Masks",
        help="Candidates from boxes and the images' colours alone: no model, no training.",
        about="A source of its own, with or without a teacher beside it, where no segmenter knows the classes; "
        "infer-semantic does the same for the classes that its segmenter does not know.",
        example="runs/mine",
        config=f"{_OPTIONS}.stages.infer_colors:InferColorsConfig",
        function=f"{_STAGES}.infer_colors:InferColorsStage",
        next="pseudolabel fuse {asked}",
    ),
    "infer-prompted": StageCommand(
        section="Masks",
        help="Candidates by a model of SAM's kind, or of salience, that is asked about every box.",
        about="With  --boxes-from TABLE  it refines the candidates of a run without boxes.",
        example="runs/mine --model sam:sam2.1-hiera-tiny/",
        config=f"{_OPTIONS}.stages.infer_prompted:InferPromptedConfig",
        function=f"{_STAGES}.infer_prompted:InferPromptedStage",
        next="pseudolabel fuse {asked}",
    ),
    "add-candidates": Tool(
        section="Masks",
        help="Masks that another program made, as one more source of fuse.",
        about="Every mask is checked; what is left out is counted and named.",
        example="runs/mine --name sam --masks masks.json",
        config=f"{_OPTIONS}.stages.add_candidates:AddCandidatesConfig",
        function=f"{_TOOLS}.add_candidates:add_candidates",
        show=f"{_TOOLS}.add_candidates:format_added",
        next="pseudolabel fuse {asked}",
    ),
    "train-teacher": Trainer(
        extra="train",
        section="Masks",
        help="Learn masks from the run's boxes alone, for infer-teacher.",
        about="Each method has its own options: --method NAME --help-all shows them.",
        example="runs/mine --backbone-weights deeplabv3.onnx",
        config="pseudolabel.teachers.mal.config:MalConfig",
        function=f"{_TRAINERS}.teacher:train_teacher",
        model="teacher",
        version=12,
        variants=f"{_TRAINERS}.teacher:config_class",
        next="pseudolabel infer-teacher {asked}",
    ),
    "infer-teacher": StageCommand(
        extra="train",
        section="Masks",
        help="Candidates by a trained teacher, or by a student.",
        example="runs/mine",
        config=f"{_OPTIONS}.stages.infer_teacher:InferTeacherConfig",
        function=f"{_STAGES}.infer_teacher:InferTeacherStage",
        next="pseudolabel fuse {asked}",
    ),
    "fuse": StageCommand(
        section="Masks",
        help="One scored mask per object out of all candidates of the run.",
        about="Writes pseudo/instances.json (COCO), pseudo/results.json and pseudo/*.parquet.",
        example="runs/mine",
        config=f"{_OPTIONS}.stages.fuse:FuseConfig",
        function=f"{_STAGES}.fuse:FuseStage",
        next="pseudolabel report {asked}  to look, then  pseudolabel export {asked} --to yolo --out DIR",
    ),
    "train-student": Trainer(
        extra="train",
        section="Train",
        help="Learn an instance segmenter from the pseudo labels, each mask by its score.",
        example="runs/mine --backbone-weights encoder.safetensors",
        config=f"{_OPTIONS}.train_student:TrainStudentConfig",
        function=f"{_TRAINERS}.student:train_student",
        model="student",
        version=2,
        next="pseudolabel predict {asked}/models/student.safetensors --images DIR --out DIR",
    ),
    "evaluate": Tool(
        section="Look",
        help="Mask IoU and AP against true masks, always beside the boxes themselves.",
        about="The truth's annotations are matched by id, so they must be those whose boxes were the input. Of a run "
        "without boxes the images are matched by file name, and AP alone is measured.",
        example="runs/mine --ground-truth instances.json",
        config=f"{_OPTIONS}.tools:EvaluateConfig",
        function=f"{_TOOLS}.evaluate:run_evaluation",
        show=f"{_TOOLS}.evaluate:format_figures",
        check=f"{_TOOLS}.evaluate:check_quality",
        step=True,
        next="pseudolabel report {asked} --ground-truth {ground_truth}  shows the worst of them",
    ),
    "picture": Tool(
        section="Look",
        help="Pictures of the pseudo labels: whole images, and objects from worst to best.",
        example="runs/mine",
        config=f"{_OPTIONS}.tools:PictureConfig",
        function="pseudolabel.pipelines.look.picture:draw_pictures",
        next="pseudolabel review {asked}  to correct what you saw, or  pseudolabel export {asked} --to yolo --out DIR",
    ),
    "report": Tool(
        extra="report",
        section="Look",
        help="All of it on one page: decisions, scores, classes, sources, and a gallery to look into.",
        about="One HTML file that asks the network for nothing. An object opens large, with every source's mask.",
        example="runs/mine",
        config=f"{_OPTIONS}.look:ReportConfig",
        function="pseudolabel.pipelines.look.report:write_report",
        show="pseudolabel.pipelines.look.report:format_written",
        next="open the page, then  pseudolabel review {asked}  to correct, or  pseudolabel export "
        "{asked} --to yolo --out DIR",
    ),
    "review": Tool(
        section="Look",
        help="Look at the masks where a look buys most, on a local page, by keyboard.",
        about="Accept a mask, take another source's, draw one, or say that only the box is right. Answers are kept in "
        "RUN/reviews/; the next  fuse  takes them as the last word, and  calibrate  as audited truth.",
        example="runs/mine --budget 200",
        config=f"{_OPTIONS}.review:ReviewConfig",
        function=f"{_TOOLS}.review:review",
        show=f"{_TOOLS}.review:format_review",
        next="{next}",
    ),
    "diff": Tool(
        section="Look",
        help="What changed between two runs over the same boxes: masks, decisions, scores.",
        about="BASE is the run folder that RUN is compared with, annotation by annotation.",
        example="runs/mine runs/before --max-drift 0.1",
        config=f"{_OPTIONS}.look:DiffConfig",
        function="pseudolabel.pipelines.look.diff:diff_runs",
        show="pseudolabel.pipelines.look.diff:format_diff",
        check="pseudolabel.pipelines.look.diff:check_gates",
        second="base",
        step=True,
        next="pseudolabel report {asked}  shows all of the run",
    ),
    "calibrate": Tool(
        extra="calibrate",
        section="Look",
        help="Learn from a small audited set what a score means as expected mask IoU.",
        about="The file goes into  fuse --calibration. The figures are of images that it was not learned from.",
        example="runs/mine --ground-truth audited.json",
        config=f"{_OPTIONS}.tools:CalibrateConfig",
        function=f"{_TOOLS}.calibrate:calibrate",
        show=f"{_TOOLS}.calibrate:format_calibration",
        next="{next}",
    ),
    "doctor": Tool(
        section="Start",
        help="Whether this machine, and a run's data, will do; and what to do where not.",
        about="RUN may be left out, or be a file of annotations, with --images DIR: then these are looked at, and what "
        "their run would take. With --model, or where a run has a segmenter, it says which boxes that knows. Ends "
        "with 4 where something would fail.",
        example="boxes.json --images images/",
        argument="",
        config=f"{_OPTIONS}.look:DoctorConfig",
        function="pseudolabel.pipelines.doctor.doctor:examine",
        show="pseudolabel.pipelines.doctor.doctor:format_checks",
        check="pseudolabel.pipelines.doctor.doctor:check_health",
        second="run",
        next="type what stands behind an arrow, then  pseudolabel shard RUN --images {images:DIR} "
        "--annotations {annotations:FILE}  or the next step of a run",
    ),
    "audit": Tool(
        section="Look",
        help="What is likely wrong with given boxes and masks: doubled, loose, tight, missing, of a wrong class.",
        about="FILE is a COCO file. Without --run the boxes alone are looked at. Writes issues.csv, issues.json and "
        "pictures of the worst; a missing object has no id.",
        example="boxes.json --images images/ --run runs/mine",
        argument="FILE",
        config=f"{_OPTIONS}.audit:AuditConfig",
        function=f"{_TOOLS}.audit:audit",
        show=f"{_TOOLS}.audit:format_audit",
        check=f"{_TOOLS}.audit:check_audit",
        next="look at {out}, correct the boxes, then  pseudolabel shard RUN --images {images:DIR} "
        "--annotations {asked}",
    ),
    "verify": OwnCommand(
        section="Look",
        help="Read every part of a run: nothing damaged, nothing missing, nothing lost.",
        example="runs/mine",
        next="pseudolabel export {asked} --to yolo --out DIR",
    ),
    "predict": Tool(
        extra="train",
        section="Use",
        help="A trained student on any folder of images: COCO results and pictures.",
        about="STUDENT is a file such as RUN/models/student.safetensors.",
        example="runs/mine/models/student.safetensors --images photos/ --out found/",
        argument="STUDENT",
        config=f"{_OPTIONS}.tools:PredictConfig",
        function=f"{_TOOLS}.predict:predict",
        show=f"{_TOOLS}.predict:predict_text",
        next="pseudolabel export-model {asked} --onnx student.onnx",
    ),
    "export": Tool(
        section="Use",
        help="The pseudo labels in the form that another tool reads: YOLO, COCO, label TIFF and more.",
        about="Read again before it takes its name: the IoU of its masks with the labels is printed. docs/export.md "
        "tells what each form keeps.",
        example="runs/mine --to yolo --out yolo/",
        config=f"{_OPTIONS}.export:ExportConfig",
        function=f"{_TOOLS}.export:export_run",
        show=f"{_TOOLS}.export:export_text",
        next="{next}",
    ),
    "export-model": Tool(
        extra="train",
        section="Use",
        help="A trained student as an ONNX file, checked against torch, or as torch.export.",
        about="STUDENT is a file such as RUN/models/student.safetensors.",
        example="runs/mine/models/student.safetensors --onnx student.onnx",
        argument="STUDENT",
        config=f"{_OPTIONS}.tools:ExportModelConfig",
        function=f"{_TOOLS}.export_model:export_model",
        show=f"{_TOOLS}.export_model:export_text",
        next="pseudolabel predict {asked} --images DIR --out DIR  is what its finds can be compared with",
    ),
    "run-shard": OwnCommand(
        section="Advanced",
        help="Some shards of a job: what a scheduler's task calls.",
        about="One attempt at the shards of one entry of SHARDS, for the stage and run that JOB names.",
        example="job.json shards.json --entry 0 --stage fuse",
        hidden=True,
    ),
}

STAGES = Registry("stage", {name: one.function for name, one in COMMANDS.items() if isinstance(one, StageCommand)})
TRAINERS = {name: one for name, one in COMMANDS.items() if isinstance(one, Trainer)}


def find_command(name: str) -> Command | None:
    """The command of that name, of the table or of an installed package; None where there is none."""
    if name in COMMANDS:
        return COMMANDS[name]
    target = installed("pseudolabel.command", name)
    found: Command | None = load_target(target) if target else None
    return found


def is_step(name: str) -> bool:
    """Whether a run file may have a section of that name."""
    command = find_command(name)
    return isinstance(command, Configured) and not command.hidden and getattr(command, "step", True)


# the order of a run; a run file's sections are a subset of these
ORDER = tuple(name for name in COMMANDS if is_step(name))


def configured(name: str) -> Configured:
    """The entry of a command that has a config.

    Raises:
        ConfigError: there is none of that name; the message names the nearest.
    """
    command = find_command(name)
    if not isinstance(command, Configured):
        raise ConfigError(f"no command {name!r} with options{did_you_mean(name, ORDER)}")
    return command


def load_stage(name: str) -> "type[Stage]":
    """The class of a stage.

    Raises:
        ConfigError: no such stage; the message names the nearest.
    """
    command = find_command(name)
    stage: type[Stage] = load_target(command.function) if isinstance(command, StageCommand) else STAGES.load(name)
    return stage

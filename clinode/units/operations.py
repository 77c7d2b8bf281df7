"""The operations of torch that are known, by name, and the rule of each."""

from clinode.system import UnitError

from .products import einsum, linear, matrix_product, outer
from .rules import (
    Rule,
    add,
    angle,
    assign,
    bounded,
    choose,
    compare,
    difference,
    divide,
    filled,
    fixed_power,
    gathered,
    interpolate,
    literals,
    multiply,
    number,
    numbers_only,
    padded,
    plain,
    power,
    reduce,
    running,
    same_numbers,
    shape,
    sign,
    unary,
    zeros,
)
from .terms import ATOM, SUM, Table


def _named(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_named(
        "shape dtype device ndim layout is_leaf requires_grad grad_fn is_sparse is_cuda is_nested "
        "is_quantized is_meta names size dim numel stride ndimension nelement is_floating_point "
        "is_complex is_contiguous storage_offset element_size __len__ __repr__ __format__ __hash__ "
        "isfinite isnan isinf any all logical_and logical_or logical_not logical_xor argmax argmin "
        "argsort is_same_size get_device result_type __set__ __bool__ is_conj is_neg itemsize "
        "searchsorted bucketize output_nr _version",
        plain,
    ),
    **_named(
        "__getitem__ split split_with_sizes chunk unbind tensor_split reshape reshape_as view "
        "view_as expand expand_as unsqueeze squeeze permute transpose t T mT movedim moveaxis "
        "swapaxes swapdims flatten unflatten ravel roll flip fliplr flipud gather take "
        "take_along_dim index_select masked_select narrow select tile repeat repeat_interleave "
        "broadcast_to diag diagonal diag_embed diagflat tril triu rot90 unfold real atleast_1d "
        "atleast_2d",
        shape,
    ),
    **_named("cat concat concatenate stack hstack vstack dstack column_stack", gathered),
    **_named("broadcast_tensors block_diag", gathered),
    **_named(
        "contiguous clone detach to double float type_as cpu data requires_grad_ alias positive "
        "__pos__ retain_grad as_subclass",
        same_numbers,
    ),
    **_named("zeros_like new_zeros new_empty empty_like zero_", zeros),
    **_named("ones_like full_like new_ones new_full new_tensor rand_like randn_like", literals),
    **_named("neg negative __neg__", unary("-{}", SUM)),
    **_named("abs absolute __abs__ fabs", unary("abs({})")),
    **_named("relu leaky_relu nan_to_num hardshrink sort", unary("relu({})")),
    **_named(
        "exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan arcsin arccos arctan sinh "
        "cosh tanh asinh acosh atanh sigmoid expit logit erf erfc erfcx erfinv ndtr ndtri log_ndtr "
        "softplus silu gelu elu selu softmax log_softmax logsumexp logaddexp xlogy xlog1py sinc "
        "lgamma digamma gammaln i0 i0e i1 i1e floor ceil round trunc frac floor_divide "
        "__floordiv__ logsigmoid tanhshrink softsign mish hardtanh hardsigmoid sinc",
        numbers_only,
    ),
    **_named(
        "eq ne lt le gt ge __eq__ __ne__ __lt__ __le__ __gt__ __ge__ greater less greater_equal "
        "less_equal not_equal isclose allclose equal",
        compare,
    ),
    **_named("add __add__ __radd__ __iadd__ add_", add("{} + {}")),
    **_named("sub subtract __sub__ __rsub__ rsub __isub__ sub_", add("{} - {}")),
    **_named("maximum fmax", add("maximum({}, {})", ATOM)),
    **_named("minimum fmin", add("minimum({}, {})", ATOM)),
    **_named("remainder __mod__ fmod", add("remainder({}, {})", ATOM)),
    **_named("hypot", add("hypot({}, {})", ATOM)),
    **_named("mul multiply __mul__ __rmul__ __imul__ mul_", multiply),
    **_named(
        "div divide true_divide __truediv__ __rtruediv__ __itruediv__ __div__ __rdiv__ "
        "__idiv__ div_",
        divide,
    ),
    **_named("pow __pow__ __rpow__ float_power", power),
    "sqrt": fixed_power(0.5),
    "rsqrt": fixed_power(-0.5),
    "square": fixed_power(2.0),
    "reciprocal": fixed_power(-1.0),
    **_named("sum mean nansum nanmean amax amin max min median std norm vector_norm", reduce()),
    "var": reduce(2.0),
    "cumsum": running,
    "diff": difference,
    **_named("clamp clip clamp_min clamp_max", bounded),
    "where": choose,
    "masked_fill": filled,
    "pad": padded,
    **_named("matmul __matmul__ __rmatmul__ mm mv bmm dot inner vdot", matrix_product),
    "linear": linear,
    **_named("outer ger", outer),
    "einsum": einsum,
    **_named("atan2 arctan2", angle),
    **_named("sign sgn heaviside", sign),
    **_named("item tolist numpy __float__ __int__ __index__ __complex__ __array__", number),
    "lerp": interpolate,
    "__setitem__": assign,
}


def rule_for(table: Table, name: str) -> Rule:
    """The rule of an operation.

    Raises:
        UnitError: There is none.
    """
    rule = RULES.get(name, RULES.get(name.removeprefix("special_").removeprefix("linalg_")))
    if rule is None:
        raise UnitError(
            f"torch's '{name}' is an operation whose effect on units is not known",
            where=table.where,
            fix="write it with sums, products and functions of numbers",
        )
    return rule

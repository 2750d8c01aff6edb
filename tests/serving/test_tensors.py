"""TensorProto to NumPy and back, against TensorFlow's own conversion."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from evergreen.serving import tensors

pytestmark = pytest.mark.tensorflow

KINDS = "float32 float64 float16 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64 complex128"


@pytest.mark.parametrize("kind", KINDS.split())
def test_every_type_survives_both_ways(kind):
    dtype = tf.dtypes.as_dtype(kind)
    array = np.array([[0, 1, 3], [2, 1, 0]]).astype(dtype.as_numpy_dtype)
    for made in (tf.make_tensor_proto(array), ours(array)):
        np.testing.assert_array_equal(tensors.to_array(made), array)
        np.testing.assert_array_equal(tf.make_ndarray(made), array)
        assert tensors.to_array(made).dtype == array.dtype


def test_strings_and_scalars():
    array = np.array([[b"a", b""], [b"\xff\x00", "é".encode()]], object)
    np.testing.assert_array_equal(tensors.to_array(tf.make_tensor_proto(array)), array)
    np.testing.assert_array_equal(tf.make_ndarray(ours(array)), array)
    assert tensors.to_array(tf.make_tensor_proto(2.5)).tolist() == 2.5


def test_one_value_stands_for_many():
    proto = tf.make_tensor_proto(1.5, shape=[2, 3])
    assert len(proto.float_val) == 1
    assert tensors.to_array(proto).tolist() == [[1.5] * 3] * 2


@pytest.mark.parametrize(
    "text",
    [
        "dtype: DT_FLOAT tensor_shape { dim { size: 2 } }",
        "dtype: DT_FLOAT tensor_shape { dim { size: 2 } } float_val: [1, 2, 3]",
        "dtype: DT_FLOAT tensor_shape { dim { size: -1 } } float_val: 1",
        "dtype: DT_FLOAT tensor_shape { unknown_rank: true } float_val: 1",
        "dtype: DT_FLOAT tensor_shape { dim { size: 1000000000000 } } float_val: 1",
        'dtype: DT_FLOAT tensor_shape { dim { size: 2 } } tensor_content: "abc"',
        'dtype: DT_STRING tensor_shape { dim { size: 1 } } tensor_content: "abc"',
        "dtype: DT_INVALID",
        "dtype: DT_RESOURCE tensor_shape { dim { size: 1 } }",
    ],
)
def test_a_tensor_that_is_not_whole_is_refused_before_memory_is_taken(text):
    from google.protobuf import text_format

    with pytest.raises(ValueError):
        tensors.to_array(text_format.Parse(text, tensor_pb2.TensorProto()))


def ours(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Writes an array into a TensorProto by our own code."""
    proto = tensor_pb2.TensorProto()
    tensors.to_proto(array, proto)
    return proto

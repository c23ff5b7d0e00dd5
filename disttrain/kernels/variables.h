// Variables of the graph, as operations find them.

#ifndef DISTTRAIN_KERNELS_VARIABLES_H_
#define DISTTRAIN_KERNELS_VARIABLES_H_

#include <algorithm>
#include <cstring>
#include <vector>

#include "blocks.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"

namespace disttrain {

typedef core::RefCountPtr<Var> Variable;

Status Find(OpKernelContext* context, const Tensor& handle, Variable* variable) {
  return LookupResource(context, handle.scalar<ResourceHandle>()(), variable);
}

Status Copy(OpKernelContext* context, const Tensor& from, Tensor* to) {
  TF_RETURN_IF_ERROR(context->allocate_temp(from.dtype(), from.shape(), to));
  const StringPiece bytes = from.tensor_data();
  std::memcpy(const_cast<char*>(to->tensor_data().data()), bytes.data(), bytes.size());
  return OkStatus();
}

// The present value of a variable, shared with it.
Status Value(OpKernelContext* context, const Tensor& handle, Tensor* value) {
  Variable variable;
  TF_RETURN_IF_ERROR(Find(context, handle, &variable));
  tf_shared_lock lock(*variable->mu());
  if (!variable->copy_on_read_mode.load()) {
    *value = *variable->tensor();
    return OkStatus();
  }
  // Once updated by rows, a variable no longer makes a copy when it is assigned to.
  return Copy(context, *variable->tensor(), value);
}

// Variables that are being written to: held exclusively, in the order that TensorFlow keeps.
class Held {
 public:
  static constexpr size_t kAll = static_cast<size_t>(-1);

  ~Held() {
    for (mutex* one : locked_) one->unlock();
  }

  // A tensor may hold the handles of several variables.
  Status Hold(OpKernelContext* context, const Tensor& handles, size_t most = kAll) {
    const auto all = handles.flat<ResourceHandle>();
    for (int64_t i = 0; i < all.size() && variables_.size() < most; ++i) {
      variables_.emplace_back();
      TF_RETURN_IF_ERROR(LookupResource(context, all(i), &variables_.back()));
    }
    return OkStatus();
  }

  Status Hold(OpKernelContext* context, const OpInputList& handles, size_t most = kAll) {
    for (int i = 0; i < handles.size(); ++i)
      TF_RETURN_IF_ERROR(Hold(context, handles[i], most));
    return OkStatus();
  }

  Status Lock() {
    for (const Variable& variable : variables_) locked_.push_back(variable->mu());
    std::sort(locked_.begin(), locked_.end());
    const bool twice = std::adjacent_find(locked_.begin(), locked_.end()) != locked_.end();
    if (twice) {
      locked_.clear();
      return errors::InvalidArgument("a variable is given twice");
    }
    for (mutex* one : locked_) one->lock();
    return OkStatus();
  }

  Var* operator[](size_t i) const { return variables_[i].get(); }
  size_t size() const { return variables_.size(); }

 private:
  std::vector<Variable> variables_;
  std::vector<mutex*> locked_;
};

// Where a held variable may be written to. If someone still reads it, that is a new buffer, to which
// its elements have to be copied from `before` first; else `before` is left as it is.
Status Write(OpKernelContext* context, Var* variable, Tensor* before, Tensor* after) {
  Tensor* own = variable->tensor();
  // In copy_on_read_mode nobody else has the buffer.
  const bool alone = variable->copy_on_read_mode.load() || own->RefCountIsOne();
  if (!alone) {
    *before = *own;
    Tensor made;
    AllocatorAttributes attributes;
    attributes.set_gpu_compatible(true);
    attributes.set_nic_compatible(true);
    TF_RETURN_IF_ERROR(context->allocate_temp(own->dtype(), own->shape(), &made, attributes));
    *own = made;
  }
  *after = *own;
  return OkStatus();
}

}  // namespace disttrain

#endif  // DISTTRAIN_KERNELS_VARIABLES_H_

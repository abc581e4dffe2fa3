# The same operators for the GPU, in the same library. The CUDA runtime is linked statically: where there is no GPU, the
# library loads and its CPU kernels run.
add_library(salience_kernels_cuda OBJECT)
foreach(operator IN LISTS operators)
  target_sources(salience_kernels_cuda PRIVATE ${operator}.cu)
endforeach()
set_target_properties(salience_kernels_cuda PROPERTIES
  CUDA_STANDARD_REQUIRED ON CUDA_VISIBILITY_PRESET hidden)
# Not -Wpedantic: what nvcc gives to the host's compiler has line marks of its own.
target_compile_options(salience_kernels_cuda PRIVATE
  --Werror=all-warnings "SHELL:-Xcompiler=-Wall,-Wextra,-Wconversion,-Wshadow,-Werror")

target_sources(salience_kernels PRIVATE onnxruntime_cuda_operators.cpp)
target_compile_definitions(salience_kernels PRIVATE SALIENCE_CUDA)
target_include_directories(salience_kernels SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
target_link_libraries(salience_kernels PRIVATE salience_kernels_cuda CUDA::cudart_static)

if(SALIENCE_TENSORRT)
  find_path(TENSORRT_INCLUDE_DIR NvInfer.h HINTS "${TENSORRT_ROOT}" ENV TENSORRT_ROOT PATH_SUFFIXES include)
  if(NOT TENSORRT_INCLUDE_DIR)
    message(FATAL_ERROR "SALIENCE_TENSORRT: got no NvInfer.h, expected TensorRT's headers of 10.0 or later; give the \
folder of a TensorRT release as TENSORRT_ROOT.")
  endif()
  target_sources(salience_kernels PRIVATE tensorrt_plugins.cpp)
  target_include_directories(salience_kernels SYSTEM PRIVATE "${TENSORRT_INCLUDE_DIR}")
endif()

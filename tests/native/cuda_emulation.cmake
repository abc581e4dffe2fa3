# The CUDA kernels, compiled as C++ and run by the threads of cpp/cuda_emulation: their arithmetic is tested where there
# is no GPU. Those threads jump between stacks, which ThreadSanitizer does not follow.
if(NOT UNIX OR SALIENCE_SANITIZE MATCHES "thread")
  return()
endif()

file(GLOB cuda_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/runtime/kernels/*.cu")
set_source_files_properties(${cuda_sources} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
salience_test(cuda_kernels_test cpp/cuda_kernels_test.cpp cpp/cuda_emulation/block.cpp ${cuda_sources})
target_include_directories(cuda_kernels_test PRIVATE
  "${CMAKE_CURRENT_SOURCE_DIR}/cpp/cuda_emulation" "${PROJECT_SOURCE_DIR}/runtime/kernels")
# A GPU refuses addresses that are not aligned as what is read there; elements are read under several types; a fortified
# longjmp refuses other stacks.
target_compile_options(cuda_kernels_test PRIVATE
  -Wno-unknown-pragmas -fno-strict-aliasing -fsanitize=alignment -fsanitize-undefined-trap-on-error -U_FORTIFY_SOURCE)
target_link_libraries(cuda_kernels_test PRIVATE salience_kernels_cpu)

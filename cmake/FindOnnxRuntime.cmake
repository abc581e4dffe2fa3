# ONNX Runtime: the target `onnxruntime::onnxruntime`, and `OnnxRuntime_LIBRARY` with its real path.
#
# Searched in this order:
#   its own CMake package (onnxruntimeConfig.cmake);
#   ONNXRUNTIME_ROOT, a folder with include/ and lib/, as a variable or in the environment;
#   the library in the `onnxruntime` wheel of Python3_EXECUTABLE, with the headers in ONNXRUNTIME_INCLUDE_DIR, or in
#   build/deps where cmake/fetch_headers.sh puts them. Headers older than the library are fine, newer ones are not.
find_package(onnxruntime CONFIG QUIET)
if(TARGET onnxruntime::onnxruntime)
  get_target_property(OnnxRuntime_LIBRARY onnxruntime::onnxruntime LOCATION)
  get_target_property(_includes onnxruntime::onnxruntime INTERFACE_INCLUDE_DIRECTORIES)
  find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_cxx_api.h HINTS ${_includes} PATH_SUFFIXES onnxruntime REQUIRED)
  set(OnnxRuntime_FOUND TRUE)
  return()
endif()

set(_roots ${ONNXRUNTIME_ROOT} $ENV{ONNXRUNTIME_ROOT})
find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_cxx_api.h
  HINTS ${_roots} "${CMAKE_SOURCE_DIR}/build/deps/usr" $ENV{ONNXRUNTIME_INCLUDE_DIR}
  PATH_SUFFIXES include/onnxruntime include include/onnxruntime/core/session)
find_library(OnnxRuntime_LIBRARY onnxruntime HINTS ${_roots} PATH_SUFFIXES lib lib64)

if(NOT OnnxRuntime_LIBRARY)
  find_package(Python3 COMPONENTS Interpreter QUIET)
  if(Python3_FOUND)
    execute_process(
      COMMAND "${Python3_EXECUTABLE}" -c
        "import importlib.util as u, pathlib as p; print(p.Path(u.find_spec('onnxruntime').origin).parent / 'capi')"
      OUTPUT_VARIABLE _folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    file(GLOB _found "${_folder}/libonnxruntime.so.*" "${_folder}/libonnxruntime.*.dylib")
    if(_folder AND _found)
      list(GET _found 0 OnnxRuntime_LIBRARY)
      set(OnnxRuntime_FROM_WHEEL TRUE)
      # The wheel has the library under its full version alone, and programs look for the name in it.
      file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/onnxruntime")
      file(CREATE_LINK "${OnnxRuntime_LIBRARY}" "${CMAKE_BINARY_DIR}/onnxruntime/libonnxruntime.so.1" SYMBOLIC)
    endif()
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OnnxRuntime
  REQUIRED_VARS OnnxRuntime_LIBRARY ONNXRUNTIME_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "set ONNXRUNTIME_ROOT to a release of ONNX Runtime, or pip install onnxruntime, give that \
Python as Python3_EXECUTABLE, and run cmake/fetch_headers.sh, which gets the headers from Debian")

if(OnnxRuntime_FOUND AND NOT TARGET onnxruntime::onnxruntime)
  add_library(onnxruntime::onnxruntime SHARED IMPORTED)
  set(_location "${OnnxRuntime_LIBRARY}")
  if(OnnxRuntime_FROM_WHEEL)
    set(_location "${CMAKE_BINARY_DIR}/onnxruntime/libonnxruntime.so.1")
  endif()
  set_target_properties(onnxruntime::onnxruntime PROPERTIES
    IMPORTED_LOCATION "${_location}" INTERFACE_INCLUDE_DIRECTORIES "${ONNXRUNTIME_INCLUDE_DIR}")
endif()

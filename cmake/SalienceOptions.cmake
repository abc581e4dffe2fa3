# What every target of ours is compiled with: `target_link_libraries(... PRIVATE salience_options)`.
add_library(salience_options INTERFACE)
if(MSVC)
  target_compile_options(salience_options INTERFACE /W4 /WX)
else()
  target_compile_options(salience_options INTERFACE
    $<$<COMPILE_LANGUAGE:C,CXX>:-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # It sees overlaps in std::string where there are none (GCC bug 105651).
    target_compile_options(salience_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
  endif()
endif()

if(SALIENCE_SANITIZE)
  target_compile_options(salience_options INTERFACE
    $<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=${SALIENCE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g>
    # GCC sees uninitialized values where its sanitizers add code, and advises against errors there.
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-maybe-uninitialized>)
  target_link_options(salience_options INTERFACE -fsanitize=${SALIENCE_SANITIZE})
endif()
